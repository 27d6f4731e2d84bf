//! What the documents say, and what psql prints.

mod access;
mod golden;
mod readme;
mod reference;
mod versions;
