//! What a listening client is told, and what not.

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres::Client;
use serde_json::{Value, json};
use sync_ext_harness::batch::{delete, op, op_id, push, put};
use sync_ext_harness::database::Database;

use crate::patching::{allow_patches, patch};

const DEADLINE: Duration = Duration::from_secs(60);

/// Somebody who pushes and somebody who listens.
struct Pair {
    database: Database,
    pusher: Client,
    listener: Client,
}

impl Pair {
    fn new(notify: &str) -> Pair {
        let database = Database::new();
        let mut pusher = database.session();
        pusher
            .batch_execute(&format!(
                "load 'sync_ext'; set sync_ext.notify = {notify};
                 select sync_register_table('notes'),
                   sync_register_table('diary', owner_field => 'by')"
            ))
            .unwrap();
        let mut listener = database.session();
        listener.batch_execute("listen sync_ext; listen elsewhere").unwrap();
        Pair { database, pusher, listener }
    }

    /// What was told since the last time: a notification that is sent now comes
    /// after all of them.
    fn told(&mut self) -> Vec<Value> {
        self.pusher.batch_execute("notify sync_ext, 'end'").unwrap();
        let mut notifications = self.listener.notifications();
        let mut told = Vec::new();
        let mut coming = notifications.timeout_iter(DEADLINE);
        loop {
            let next = coming.next().unwrap().expect("the end is told");
            assert!(next.payload().len() <= 7_500 || next.payload() == "end");
            if next.payload() == "end" {
                return told;
            }
            let mut payload: Value = serde_json::from_str(next.payload()).unwrap();
            if next.channel() != "sync_ext" {
                payload["channel"] = next.channel().into();
            }
            told.push(payload);
        }
    }
}

fn hint(workspace: &str, version: i64) -> Value {
    json!({"workspaceId": workspace, "serverVersion": version})
}

#[test]
fn nothing_is_notified_by_default() {
    for notify in ["default", "off"] {
        let mut pair = Pair::new(notify);
        push(&mut pair.pusher, "w", &[put(1, "a", 1)]);
        assert_eq!(pair.told(), [] as [Value; 0]);
    }
}

#[test]
fn each_workspace_is_notified_once_and_savepoints_count() {
    let mut pair = Pair::new("hint");
    let pusher = &mut pair.pusher;
    let mut transaction = pusher.transaction().unwrap();
    push(&mut transaction, "w", &[put(1, "a", 1), put(2, "b", 1)]);
    push(&mut transaction, "v", &[put(1, "a", 1)]);
    let mut lost = transaction.savepoint("lost").unwrap();
    push(&mut lost, "w", &[put(3, "c", 1)]);
    push(&mut lost, "u", &[put(1, "a", 1)]);
    let mut within = lost.savepoint("within").unwrap();
    push(&mut within, "t", &[put(1, "a", 1)]);
    within.commit().unwrap();
    lost.rollback().unwrap();
    let mut kept = transaction.savepoint("kept").unwrap();
    push(&mut kept, "w", &[put(4, "d", 1)]);
    kept.commit().unwrap();
    push(&mut transaction, "w", &[put(6, "e", 1)]);
    transaction.commit().unwrap();
    assert_eq!(pair.told(), [hint("w", 4), hint("v", 1)]);
}

#[test]
fn a_push_that_stores_nothing_does_not_notify() {
    let mut pair = Pair::new("hint");
    push(&mut pair.pusher, "w", &[put(1, "a", 1)]);
    assert_eq!(pair.told(), [hint("w", 1)]);
    // A rollback, a replay and a refusal are nothing to tell.
    let mut transaction = pair.pusher.transaction().unwrap();
    push(&mut transaction, "w", &[put(5, "e", 1)]);
    transaction.rollback().unwrap();
    push(&mut pair.pusher, "w", &[put(1, "a", 1)]);
    let refused = "select sync_push('w', '[{}]'::json)";
    pair.pusher.execute(refused, &[]).unwrap();
    assert_eq!(pair.told(), [] as [Value; 0]);
}

#[test]
fn a_server_op_notifies_as_a_push() {
    let mut pair = Pair::new("changes");
    pair.pusher.batch_execute("select sync_put('w', 'notes', 'a', ' {\"n\": 1} ')").unwrap();
    let [told] = &*pair.told() else { panic!("one notification") };
    assert_eq!(told["workspaceId"], "w");
    assert_eq!(told["changes"][0]["payload"], json!({"n": 1}));
    assert_eq!(told["changes"][0]["stamp"]["deviceId"], "$server");
    pair.pusher.batch_execute("select sync_put('w', 'unknown', 'a', '{}')").unwrap();
    assert_eq!(pair.told(), [] as [Value; 0]);
}

/// It stores in a subtransaction of its own, once in vain.
#[test]
fn a_large_push_notifies_once() {
    let mut pair = Pair::new("hint");
    let many: Vec<String> = (10..40).map(|n| put(n, &format!("pk-{}", n % 20), 1)).collect();
    push(&mut pair.pusher, "w", &many);
    assert_eq!(pair.told(), [hint("w", 30)]);
}

/// Postgres lets no prepared transaction notify: it must prepare all the same,
/// and what comes after it is not told for it.
#[test]
fn a_prepared_transaction_does_not_notify() {
    let mut pair = Pair::new("hint");
    pair.pusher.batch_execute("begin").unwrap();
    push(&mut pair.pusher, "w", &[put(50, "f", 1)]);
    pair.pusher.batch_execute("prepare transaction 'p'").unwrap();
    push(&mut pair.pusher, "v", &[put(2, "b", 1)]);
    assert_eq!(pair.told(), [hint("v", 1)]);
    pair.pusher.batch_execute("commit prepared 'p'").unwrap();
    assert_eq!(pair.told(), [] as [Value; 0]);
}

#[test]
fn changes_are_those_of_a_pull() {
    let mut pair = Pair::new("changes");
    let mut transaction = pair.pusher.transaction().unwrap();
    push(&mut transaction, "w", &[put(1, "a", 2), put(2, "a", 1)]);
    let mut released = transaction.savepoint("released").unwrap();
    push(&mut released, "w", &[delete(3, "b", 1)]);
    released.commit().unwrap();
    // The last has not seen what it overwrites.
    let unseen = put(5, "c", 2).replacen('{', "{\"parent\":\"none\",", 1);
    push(&mut transaction, "w", &[put(4, "c", 1), unseen]);
    transaction.commit().unwrap();
    let sql = "select (sync_pull('w') -> 'changes')::text";
    let pulled: String = pair.pusher.query_one(sql, &[]).unwrap().get(0);
    let pulled: Value = serde_json::from_str(&pulled).unwrap();
    assert_eq!(pulled.as_array().unwrap().len(), 5);
    assert_eq!(pulled[4]["overwrote"], op_id(4));
    let told = pair.told();
    assert_eq!(told, [json!({"workspaceId": "w", "serverVersion": 5, "changes": pulled})]);
}

/// A patch that a later one of its call superseded has no record in either.
#[test]
fn changes_contain_patches_as_a_pull_does() {
    let mut pair = Pair::new("changes");
    allow_patches(&mut pair.pusher);
    let ops = [
        op(1, "a", 1, "put", r#"{"x":1}"#),
        patch(2, "a", 2, (1, 1), r#"{"x":2}"#),
        patch(3, "a", 3, (1, 1), r#"{"y":3}"#),
        patch(4, "a", 1, (1, 1), r#"{"x":0}"#),
    ];
    push(&mut pair.pusher, "w", &ops);
    let sql = "select (sync_pull('w') -> 'changes')::text";
    let pulled: String = pair.pusher.query_one(sql, &[]).unwrap().get(0);
    let pulled: Value = serde_json::from_str(&pulled).unwrap();
    assert_eq!(pulled[2]["payload"], json!({"x": 2, "y": 3}));
    assert_eq!(pulled[2]["fields"]["x"]["opId"], op_id(2));
    let told = pair.told();
    assert_eq!(told, [json!({"workspaceId": "w", "serverVersion": 4, "changes": pulled})]);
}

/// So that who follows a scope knows whether it concerns that.
#[test]
fn changes_name_the_scopes_that_records_are_in_and_leave() {
    let mut pair = Pair::new("changes");
    let register = "select sync_register_table('notes', scope_field => 'list')";
    pair.pusher.batch_execute(register).unwrap();
    let to = |id, list: &str| op(id, "a", id, "put", &format!(r#"{{"list":"{list}"}}"#));
    push(&mut pair.pusher, "w", &[to(1, "x"), to(2, "y"), to(3, "y")]);
    let told = pair.told();
    let scopes: Vec<_> = told[0]["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (change["scope"].as_str(), change["leftScope"].as_str()))
        .collect();
    assert_eq!(scopes, [(Some("x"), None), (Some("y"), Some("x")), (Some("y"), None)]);
}

#[test]
fn what_is_too_large_is_no_error() {
    let mut pair = Pair::new("changes");
    // Two bytes a character: what counts are bytes.
    for (id, characters, fits) in [(1, 3_500, true), (2, 3_750, false), (3, 100_000, false)] {
        let payload = format!("{{\"text\":\"{}\"}}", "é".repeat(characters));
        let versions = push(&mut pair.pusher, "w", &[op(id, "a", id, "put", &payload)]);
        assert_eq!(versions, [id as i64]);
        let told = pair.told();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["changes"].is_array(), fits, "{characters}");
        assert_eq!(told[0]["serverVersion"], id);
    }
    // Many that are small, and a name that takes the most room as JSON.
    let name = "\u{1}".repeat(256);
    let many: Vec<String> = (0..500).map(|n| put(n, &format!("pk-{n}"), 1)).collect();
    push(&mut pair.pusher, &name, &many);
    let told = json!({"workspaceId": name, "serverVersion": 500, "changes": null});
    assert_eq!(pair.told(), [told]);
}

#[test]
fn private_records_are_not_notified() {
    let mut pair = Pair::new("changes");
    let setup = "select sync_create_workspace('w', 'ann'); set sync_ext.user_id = 'ann'";
    pair.pusher.batch_execute(setup).unwrap();
    let private = put(1, "secret", 1).replace("notes", "diary");
    push(&mut pair.pusher, "w", &[private, put(2, "shared", 1)]);
    let told = pair.told();
    assert_eq!(told[0]["serverVersion"], 2);
    let pks: Vec<_> =
        told[0]["changes"].as_array().unwrap().iter().map(|change| &change["pk"]).collect();
    assert_eq!(pks, ["shared"]);
    push(&mut pair.pusher, "w", &[delete(3, "secret", 2).replace("notes", "diary")]);
    assert_eq!(pair.told(), [json!({"workspaceId": "w", "serverVersion": 3, "changes": []})]);
}

#[test]
fn settings_are_the_administrators() {
    let mut pair = Pair::new("hint");
    pair.pusher.batch_execute("set sync_ext.notify_channel = 'elsewhere'").unwrap();
    push(&mut pair.pusher, "w", &[put(1, "a", 1)]);
    let mut told = hint("w", 1);
    told["channel"] = "elsewhere".into();
    assert_eq!(pair.told(), [told]);
    // An empty name, and one that is too long for a channel, are no errors later.
    for (id, name) in [(2, String::new()), (3, "c".repeat(100))] {
        pair.pusher.batch_execute(&format!("set sync_ext.notify_channel = '{name}'")).unwrap();
        push(&mut pair.pusher, "w", &[put(id, "a", id)]);
    }
    assert_eq!(pair.told(), [hint("w", 2)]);

    pair.pusher.batch_execute("create role notified").unwrap();
    let mut other = pair.database.session();
    other.batch_execute("load 'sync_ext'").unwrap();
    for setting in ["notify = 'changes'", "notify_channel = 'x'"] {
        let sql = format!("set role notified; set sync_ext.{setting}");
        let error = other.batch_execute(&sql).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{setting}: {error}");
        other.batch_execute("reset role").unwrap();
    }
}
