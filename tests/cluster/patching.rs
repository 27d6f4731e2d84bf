//! Ops that patch, and the records that they leave.

use postgres::{Client, GenericClient};
use serde_json::Value;
use sync_ext_harness::batch::{op, op_id};
use sync_ext_harness::device::call;

/// A patch on table `notes`. Its base is the id and the clock of a put.
pub fn patch(id: u64, pk: &str, clock: u64, base: (u64, u64), payload: &str) -> String {
    let base = format!(r#""base":{{"clock":{},"hlc":"h","opId":"{}"}}"#, base.1, op_id(base.0));
    with(&op(id, pk, clock, "patch", payload), &base)
}

/// The op with one more member.
pub fn with(op: &str, member: &str) -> String {
    op.replacen('{', &format!("{{{member},"), 1)
}

pub fn allow_patches(client: &mut Client) {
    client.execute("select sync_register_table('notes', patches => true)", &[]).unwrap();
}

/// Pushes; returns the results.
pub fn results(client: &mut impl GenericClient, workspace: &str, ops: &[String]) -> Vec<Value> {
    let ops = format!("[{}]", ops.join(","));
    let sql = "select (sync_push($1, $2::text::json) -> 'results')::text";
    let results = call(client, sql, &[&workspace, &ops]).unwrap();
    serde_json::from_str(&results).unwrap()
}

/// Each record's payload, as JSON text, by pk.
pub fn payloads(client: &mut impl GenericClient, workspace: &str) -> Vec<(String, String)> {
    let sql = "select pk, payload::text from sync_ext.current_record
                where workspace_id = $1 and not deleted order by pk";
    let rows = client.query(sql, &[&workspace]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The same of one record.
pub fn payload(client: &mut impl GenericClient, workspace: &str) -> String {
    let mut payloads = payloads(client, workspace);
    assert_eq!(payloads.len(), 1, "{payloads:?}");
    payloads.remove(0).1
}

/// The items of a snapshot, and the changes that a first pull returns.
pub fn items_and_changes(client: &mut impl GenericClient, workspace: &str) -> (Value, Value) {
    let sql = "select (sync_snapshot($1) -> 'items')::text";
    let items = call(client, sql, &[&workspace]).unwrap();
    let sql = "select (sync_pull($1) -> 'changes')::text";
    let changes = call(client, sql, &[&workspace]).unwrap();
    (serde_json::from_str(&items).unwrap(), serde_json::from_str(&changes).unwrap())
}
