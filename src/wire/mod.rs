//! JSON in, JSON out. Parsing is serde_json's, over text that Postgres has
//! already accepted as JSON; no value is decoded before somebody asks for it.
//!
//! * [`fields`]: an object's members by name, as raw text
//! * [`text`]: strings and numbers out of raw text
//! * [`value`]: are two JSON texts the same value?
//! * [`push_request`]: a batch of ops, each checked by itself
//! * [`reply`]: the memory of replies; [`push_reply`], [`pages`],
//!   [`workspaces`]: what they tell
//! * [`notice`]: what listeners are told
//! * [`token`]: proofs and page tokens
//! * [`ids`]: workspace, device, user and table names that callers pass
//! * [`owner`]: whose a payload says its record is, and who JWT claims say calls

pub mod fields;
pub mod ids;
pub mod notice;
pub mod owner;
pub mod pages;
pub mod push_reply;
pub mod push_request;
pub mod reply;
pub mod text;
pub mod token;
pub mod value;
pub mod workspaces;
