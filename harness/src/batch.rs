//! Ops for tests.

use postgres::GenericClient;
use serde_json::Value;

/// A put on table `notes`; the opId follows from `id`.
pub fn put(id: u64, pk: &str, clock: u64) -> String {
    op(id, pk, clock, "put", &format!("{{\"n\":{id}}}"))
}

pub fn delete(id: u64, pk: &str, clock: u64) -> String {
    op(id, pk, clock, "delete", "null")
}

pub fn op(id: u64, pk: &str, clock: u64, operation: &str, payload: &str) -> String {
    format!(
        r#"{{"tableName":"notes","operation":"{operation}","pk":"{pk}","payload":{payload},"stamp":{{"deviceId":"d","opId":"{}","hlc":"h","clock":{clock}}}}}"#,
        op_id(id)
    )
}

/// The op with a parent.
pub fn with_parent(op: &str, parent: &str) -> String {
    with(op, "parent", &format!("\"{parent}\""))
}

/// The op with another member, of this value as JSON.
pub fn with(op: &str, key: &str, value: &str) -> String {
    op.replacen('{', &format!("{{\"{key}\":{value},"), 1)
}

pub fn op_id(id: u64) -> String {
    format!("{:08x}-0000-4000-8000-{:012x}", id >> 32, id & 0xffff_ffff)
}

/// Pushes; returns the versions in the results, all of which must be present.
pub fn push(client: &mut impl GenericClient, workspace: &str, ops: &[String]) -> Vec<i64> {
    let ops = format!("[{}]", ops.join(","));
    let row = client
        .query_one("select sync_push($1, $2::text::json)::text", &[&workspace, &ops])
        .unwrap_or_else(|error| panic!("push failed: {error:?}"));
    versions(row.get(0), "results")
}

/// The serverVersion of each element of a reply's array.
pub fn versions(reply: &str, array: &str) -> Vec<i64> {
    let reply: Value = serde_json::from_str(reply).expect("a reply is JSON");
    reply[array]
        .as_array()
        .expect("an array")
        .iter()
        .map(|item| {
            item["serverVersion"].as_i64().unwrap_or_else(|| panic!("no serverVersion: {item}"))
        })
        .collect()
}
