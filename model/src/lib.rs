//! The contract as a program: what a server must reply and store, in plain maps.
//!
//! It shares no code with the extension, so an error of the extension cannot be
//! an error of the model too. A call takes what the SQL function takes and gives
//! the reply as a [`serde_json::Value`], in which payloads are texts ([`reply`]
//! reads a real reply into the same form), or the [`Refusal`] that ends the call.
//! Times are numbers whose scale the caller chooses. An argument that must not be
//! NULL is given as the empty text, or -1, which are refused alike.
//!
//! * [`server`]: what there is: workspaces, entries, records, devices, settings
//! * [`json`], [`op`]: JSON texts, and the ops of a batch
//! * [`patch`]: what an op does at its turn
//! * [`push`], [`pull`], [`exchange`], [`snapshot`], [`devices`]: what devices call
//! * [`own_tables`]: records that are rows of an app's own tables
//! * [`gc`]: garbage collection, and what remains of dropped workspaces
//! * [`members`], [`registry`]: who may do what; tables and owner fields
//! * [`scopes`]: parts of a workspace
//! * [`status`], [`views`]: what operators read
//! * [`rows`]: every row of the tables, as a line of text
//! * [`refusal`], [`reply`]: errors; real replies

pub mod devices;
pub mod exchange;
pub mod gc;
pub mod json;
pub mod members;
pub mod op;
pub mod own_tables;
mod owners;
pub mod patch;
pub mod pull;
pub mod push;
pub mod refusal;
pub mod registry;
pub mod reply;
pub mod rows;
pub mod scopes;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod views;

pub use exchange::Exchanged;
pub use gc::{Collected, Cutoffs};
pub use members::Role;
pub use op::{Expected, Op, Revision};
pub use own_tables::{Edit, RowChange, RowRefusal, Rows};
pub use patch::{Fields, Merged};
pub use pull::{Filter, Proof, Pull, Pulled, ShownProof};
pub use refusal::{Outcome, Refusal};
pub use scopes::{Following, Scopes};
pub use server::{Device, Entry, Key, Record, Server, Settings, Workspace};
pub use snapshot::{Listed, PageToken, Snapshot};
