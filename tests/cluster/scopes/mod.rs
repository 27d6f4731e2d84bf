//! Devices that follow scopes. Each test is a history in which one rule decides what a device
//! ends with.

mod fields;
mod leaves;
mod lists;

use postgres::{Client, GenericClient};
use serde_json::Value;
use sync_ext_harness::batch::op;
use sync_ext_harness::device::{Device, call, list};
use sync_ext_harness::steps::Stage;

/// Records of `notes` are in the scope that they name in `in`, and may be patched.
fn stage() -> Stage {
    let mut stage = Stage::new();
    stage
        .admin
        .batch_execute("select sync_register_table('notes', patches => true, scope_field => 'in')")
        .unwrap();
    stage
}

/// A put into a scope.
fn put_in(scope: &str, id: u64, pk: &str, clock: u64) -> String {
    op(id, pk, clock, "put", &format!(r#"{{"in":"{scope}"}}"#))
}

fn follower(scopes: &[&str]) -> Device {
    Device { scopes: list(scopes), ..Device::new("follower", "w") }
}

/// A follower that has pulled everything.
fn up_to_date(scopes: &[&str], session: &mut Client) -> Device {
    let mut device = follower(scopes);
    device.pull(session, 100, false).unwrap();
    device
}

/// The pks of the live records that a device has.
fn has(device: &Device) -> Vec<&str> {
    let live = device.synced.iter().filter(|(_, record)| !record.deleted);
    live.map(|((_, pk), _)| pk.as_str()).collect()
}

/// The changes after a cursor, for a reader of one scope, each as its version and op.
fn changes(
    client: &mut impl GenericClient,
    cursor: i64,
    scope: &str,
    latest: bool,
) -> Vec<(i64, String)> {
    let sql = "select sync_pull('w', $1, latest => $2, scopes => array[$3]) ->> 'changes'";
    let changes = call(client, sql, &[&cursor, &latest, &scope]).unwrap();
    let changes: Vec<Value> = serde_json::from_str(&changes).unwrap();
    let told = |change: &Value| {
        (change["serverVersion"].as_i64().unwrap(), change["op"].as_str().unwrap().to_owned())
    };
    changes.iter().map(told).collect()
}

/// The pks that a snapshot lists.
fn listed(client: &mut impl GenericClient, arguments: &str) -> Vec<String> {
    let sql = format!(
        "select item ->> 'pk' from json_array_elements(sync_snapshot('w', {arguments}) -> 'items')
           with ordinality as listed(item, place) order by place"
    );
    client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}
