//! Scopes that meet: records that move while they are listed, and a scope field that changes
//! beside pushes.

use std::thread;

use postgres::Client;
use serde_json::Value;
use sync_ext_harness::batch::{op, push};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{Stage, pid};

fn to(id: u64, pk: &str, list: &str) -> String {
    op(id, pk, id, "put", &format!(r#"{{"list":"{list}","place":"{list}2"}}"#))
}

fn with_lists(admin: &mut Client) {
    admin.batch_execute("select sync_register_table('notes', scope_field => 'list')").unwrap();
}

fn told(reply: &str, key: &str) -> Vec<(String, String)> {
    let reply: Value = serde_json::from_str(reply).unwrap();
    let all = reply[key].as_array().unwrap().iter();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    all.map(|item| (text(item, "pk"), text(item, "scope"))).collect()
}

fn pair(pk: &str, scope: &str) -> (String, String) {
    (pk.to_owned(), scope.to_owned())
}

#[test]
fn a_record_that_moves_on_is_listed_again_or_pulled() {
    let mut stage = Stage::new();
    with_lists(&mut stage.admin);
    push(&mut stage.admin, "w", &[to(1, "a", "x"), to(2, "b", "y"), to(3, "c", "z")]);
    let page = "select sync_snapshot('w', $1, 1, scopes => '{x,y}')::text";
    let first: String = call(&mut stage.admin, page, &[&None::<&str>]).unwrap();
    assert_eq!(told(&first, "items"), [pair("a", "x")]);
    // Both go to where the snapshot has not come by yet, so one is listed twice.
    push(&mut stage.admin, "w", &[to(4, "a", "y"), to(5, "b", "x")]);
    let mut last: Value = serde_json::from_str(&first).unwrap();
    for expected in [pair("b", "x"), pair("a", "y")] {
        let next: String =
            call(&mut stage.admin, page, &[&last["nextPageToken"].as_str()]).unwrap();
        assert_eq!(told(&next, "items"), [expected]);
        last = serde_json::from_str(&next).unwrap();
    }
    assert_eq!(last["nextPageToken"], Value::Null);
    let pull = "select sync_pull('w', 3, proof => $1, scopes => '{x,y}')::text";
    let pulled: String = call(&mut stage.admin, pull, &[&last["proof"].as_str()]).unwrap();
    assert_eq!(told(&pulled, "changes"), [pair("a", "y"), pair("b", "x")]);
}

#[test]
fn another_scope_field_waits_for_a_push_and_counts_what_it_stored() {
    let mut stage = Stage::new();
    with_lists(&mut stage.admin);
    push(&mut stage.admin, "w", &[to(1, "a", "x")]);
    let mut pusher = stage.session();
    let mut transaction = pusher.transaction().unwrap();
    push(&mut transaction, "w", &[to(2, "b", "x")]);
    let change = stage.blocked(pid(&mut transaction), |session| {
        session.batch_execute("call sync_set_scope_field('notes', 'place')").unwrap();
    });
    transaction.commit().unwrap();
    change.join().unwrap();
    let listed = "select sync_snapshot('w', scopes => '{x2}')::text";
    let listed: String = call(&mut stage.admin, listed, &[]).unwrap();
    assert_eq!(told(&listed, "items"), [pair("a", "x2"), pair("b", "x2")]);
}

/// A table's first record may be in a push that has not committed yet.
#[test]
fn a_scope_field_is_chosen_before_the_first_push_or_not_at_all() {
    let mut stage = Stage::new();
    let mut pusher = stage.session();
    let mut transaction = pusher.transaction().unwrap();
    push(&mut transaction, "w", &[to(1, "a", "x")]);
    let registered = stage.blocked(pid(&mut transaction), |session| {
        let sql = "select sync_register_table('notes', scope_field => 'list')";
        let error = session.batch_execute(sql).unwrap_err();
        assert_eq!(error.as_db_error().unwrap().message(), "table has records");
    });
    transaction.commit().unwrap();
    registered.join().unwrap();
    let scope = "select coalesce(scope, 'none') from sync_ext.current_record";
    assert_eq!(call(&mut stage.admin, scope, &[]).unwrap(), "none");
}

/// Also in a transaction that does not see it.
#[test]
fn a_record_from_after_the_transaction_began_has_no_scope_either() {
    for isolation in ["repeatable read", "serializable"] {
        let mut stage = Stage::new();
        stage.admin.batch_execute("select sync_register_table('notes')").unwrap();
        let mut registering = stage.session();
        let begin =
            format!("begin isolation level {isolation}; select count(*) from sync_ext.workspace");
        registering.batch_execute(&begin).unwrap();
        push(&mut stage.admin, "w", &[to(1, "a", "x")]);
        let sql = "select sync_register_table('notes', scope_field => 'list')";
        let error = registering.batch_execute(sql).unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert_eq!(message, "table has records", "{isolation}");
    }
}

#[test]
fn records_of_a_workspace_that_is_being_erased_do_not_keep_the_scope_field() {
    let mut stage = Stage::new();
    stage.admin.batch_execute("select sync_register_table('notes')").unwrap();
    push(&mut stage.admin, "w", &[to(1, "a", "x"), to(2, "b", "x"), to(3, "c", "x")]);
    let drop = "select sync_drop_workspace('w', 1)";
    stage.admin.batch_execute(drop).unwrap();
    let left = "select (count(*) > 0)::text from sync_ext.record";
    assert_eq!(call(&mut stage.admin, left, &[]).unwrap(), "true");
    with_lists(&mut stage.admin);
}

/// Pushes go on while the field changes: in the end each record has the scope that it names.
#[test]
fn a_scope_field_changes_beside_pushes() {
    let mut stage = Stage::new();
    with_lists(&mut stage.admin);
    let mut pusher = stage.session();
    let pushing = thread::spawn(move || {
        for id in 1..=200 {
            let (pk, list) = (format!("pk-{}", id % 7), format!("l{}", id % 3));
            push(&mut pusher, &format!("w{}", id % 4), &[to(id, &pk, &list)]);
        }
    });
    for field in ["place", "list", "place"] {
        let sql = format!("call sync_set_scope_field('notes', '{field}')");
        stage.admin.batch_execute(&sql).unwrap();
    }
    pushing.join().unwrap();
    let wrong = "select (count(*) filter (where scope is distinct from payload ->> 'place'))::text
                   || ' of ' || count(*)::text from sync_ext.current_record";
    assert_eq!(call(&mut stage.admin, wrong, &[]).unwrap(), "0 of 28");
    let moved = "select count(*)::text from sync_ext.change_log as l join sync_ext.record as r
                   using (workspace_key, table_name, pk, server_version) where r.scope is distinct from l.scope";
    assert_eq!(call(&mut stage.admin, moved, &[]).unwrap(), "0");
}
