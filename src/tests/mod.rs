//! Tests that run inside a backend, by topic; each in a transaction that is
//! rolled back.
