//! JSON in, JSON out. serde_json parses text that Postgres has already accepted as
//! JSON; values are decoded only when they are needed.
//!
//! * [`fields`]: members of an object by name, as raw text
//! * [`text`]: strings and numbers in raw text
//! * [`value`]: comparison of JSON texts by value
//! * [`push_request`]: a batch of ops, each checked by itself; [`write_request`]: one op
//!   as SQL arguments
//! * [`reply`]: the memory of replies; [`push_reply`], [`pages`], [`small_replies`]:
//!   their contents
//! * [`notice`]: the payload of notifications; [`offered_op`]: an op for a validation
//!   function
//! * [`token`]: proofs and page tokens
//! * [`ids`]: workspace, device, user and table names that callers pass
//! * [`revision`]: revisions as JSON; [`splice`]: an object of which members change
//! * [`image`], [`pk`]: typed rows as payloads and names; [`repair`]: how they differ from
//!   their records
//! * [`columns`]: the fields and columns of an attached table
//! * [`owner`]: the owner that a payload names; [`claims`]: the user of JWT claims

pub mod claims;
pub mod columns;
pub mod fields;
pub mod ids;
pub mod image;
pub mod notice;
pub mod offered_op;
pub mod owner;
pub mod pages;
pub mod pk;
pub mod push_reply;
pub mod push_request;
pub mod repair;
pub mod reply;
pub mod revision;
pub mod small_replies;
pub mod splice;
pub mod text;
pub mod token;
pub mod value;
pub mod write_request;
