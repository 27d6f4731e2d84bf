//! The replies of the functions, as far as a device reads them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::device::Revision;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushReply {
    pub results: Vec<PushResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushResult {
    pub success: bool,
    #[serde(default)]
    pub applied: bool,
    #[serde(default)]
    pub replayed: bool,
    pub server_version: Option<i64>,
    pub winner: Option<Winner>,
    pub error_code: Option<String>,
    /// The record that does not meet the op's condition.
    pub current: Option<Winner>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Winner {
    pub kind: String,
    pub server_version: i64,
    pub revision: Revision,
    #[serde(default)]
    pub fields: BTreeMap<String, Revision>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullReply {
    pub changes: Vec<Change>,
    pub next_cursor: i64,
    pub has_more: bool,
    pub server_version: i64,
    pub requires_snapshot: bool,
    pub reason: Option<String>,
    pub proof: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    pub server_version: i64,
    pub table_name: String,
    pub pk: String,
    pub op: String,
    pub applied: bool,
    pub payload: Option<Box<RawValue>>,
    pub stamp: Revision,
    /// Of a patch.
    pub base: Option<Revision>,
    /// Of its record, for a reader of some scopes.
    pub scope: Option<String>,
    #[serde(default)]
    pub fields: BTreeMap<String, Revision>,
}

/// Each half is the reply of the single call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeReply {
    pub push: Box<RawValue>,
    pub pull: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotReply {
    pub high_watermark: i64,
    pub items: Vec<SnapshotItem>,
    pub next_page_token: Option<String>,
    pub proof: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotItem {
    pub kind: String,
    pub table_name: String,
    pub pk: String,
    pub payload: Option<Box<RawValue>>,
    pub revision: Revision,
    pub server_version: i64,
    pub scope: Option<String>,
    #[serde(default)]
    pub fields: BTreeMap<String, Revision>,
    /// The newest entry's, where patches hold fields.
    pub op_id: Option<String>,
}
