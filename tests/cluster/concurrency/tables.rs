//! The registry of tables meets pushes: a push goes by what is registered when
//! it has its workspace, not by what was when its transaction began.

use postgres::GenericClient;
use postgres::IsolationLevel;
use serde_json::Value;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::steps::{Stage, pid, versions_seen};

const SQL: &str = "select sync_push('w', $1::text::json)::text";

/// What became of a single op: its version, or the error code.
fn outcome(client: &mut impl GenericClient, op: &str) -> Result<i64, String> {
    let row = client.query_one(SQL, &[&format!("[{op}]")]).unwrap();
    let reply: Value = serde_json::from_str(row.get(0)).unwrap();
    let result = &reply["results"][0];
    match result["serverVersion"].as_i64() {
        Some(version) => Ok(version),
        None => Err(result["errorCode"].as_str().unwrap().to_owned()),
    }
}

fn refused() -> Result<i64, String> {
    Err("VALIDATION_ERROR".to_owned())
}

/// An op of table `tasks`.
fn task(id: u64) -> String {
    put(id, "t", id).replace("\"notes\"", "\"tasks\"")
}

#[test]
fn an_uncommitted_unregistration_neither_counts_nor_blocks() {
    let mut stage = Stage::new();
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    transaction.execute("select sync_unregister_table('notes')", &[]).unwrap();
    assert_eq!(outcome(&mut transaction, &put(1, "a", 1)), refused(), "in its own transaction");
    // The refused op has stored nothing, so nobody waits for that transaction.
    assert_eq!(outcome(&mut stage.admin, &put(1, "a", 1)), Ok(1));
    transaction.commit().unwrap();
    assert_eq!(outcome(&mut stage.admin, &put(2, "b", 1)), refused());
    // What was stored once stays: it is pulled, and its op is a replay.
    assert_eq!(versions_seen(&mut stage.admin, "w"), [1]);
    assert_eq!(outcome(&mut stage.admin, &put(1, "a", 1)), Ok(1));

    let mut transaction = first.transaction().unwrap();
    transaction.execute("select sync_register_table('notes')", &[]).unwrap();
    assert_eq!(outcome(&mut stage.admin, &put(2, "b", 1)), refused(), "not committed");
    transaction.rollback().unwrap();
    assert_eq!(outcome(&mut stage.admin, &put(2, "b", 1)), refused(), "never committed");
}

#[test]
fn a_table_registered_between_two_pushes_of_a_transaction_counts_for_the_second() {
    let mut stage = Stage::new();
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(outcome(&mut transaction, &task(1)), refused());
    assert_eq!(outcome(&mut transaction, &put(2, "a", 1)), Ok(1));
    stage.admin.execute("select sync_register_table('tasks')", &[]).unwrap();
    assert_eq!(outcome(&mut transaction, &task(1)), Ok(2));
    // A pk field that changes counts at once too.
    let named = r#"{"tableName":"tasks","operation":"put","pk":"t","payload":{"key":"other"},
        "stamp":{"deviceId":"d","opId":"00000000-0000-4000-8000-0000000000ff","hlc":"h","clock":9}}"#;
    assert_eq!(outcome(&mut transaction, named), Ok(3));
    stage.admin.execute("select sync_register_table('tasks', 'key')", &[]).unwrap();
    let renamed = named.replace("0000ff", "0000fe");
    assert_eq!(outcome(&mut transaction, &renamed), refused());
    stage.admin.execute("select sync_unregister_table('tasks')", &[]).unwrap();
    assert_eq!(outcome(&mut transaction, &task(4)), refused());
    assert_eq!(outcome(&mut transaction, named), Ok(3), "a replay, whatever is registered");
    transaction.commit().unwrap();
    assert_eq!(versions_seen(&mut stage.admin, "w"), [1, 2, 3]);
}

#[test]
fn a_push_that_waited_goes_by_what_was_registered_meanwhile() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    for (change, expected) in [
        ("select sync_register_table('tasks')", Ok(3)),
        ("select sync_unregister_table('tasks')", refused()),
    ] {
        let mut first = stage.session();
        let mut transaction = first.transaction().unwrap();
        let version = push(&mut transaction, "w", &[put(2, "a", 2)])[0];
        assert_eq!(version, 2);
        let id = if expected.is_ok() { 3 } else { 4 };
        let waiting =
            stage.blocked(pid(&mut transaction), move |second| outcome(second, &task(id)));
        stage.admin.execute(change, &[]).unwrap();
        transaction.commit().unwrap();
        assert_eq!(waiting.join().unwrap(), expected, "{change}");
    }
    assert_eq!(versions_seen(&mut stage.admin, "w"), [1, 2, 3]);
}

/// Its first op was good until it had to wait for somebody who creates the
/// workspace too, and does not after all.
#[test]
fn a_workspace_for_which_nothing_was_accepted_after_all_is_not_there() {
    let mut stage = Stage::new();
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    assert_eq!(outcome(&mut transaction, &put(1, "a", 1)), Ok(1));
    let waiting = stage.blocked(pid(&mut transaction), |second| outcome(second, &put(2, "b", 1)));
    stage.admin.execute("select sync_unregister_table('notes')", &[]).unwrap();
    transaction.rollback().unwrap();
    assert_eq!(waiting.join().unwrap(), refused());
    let sql = "select count(*) from sync_ext.workspace";
    assert_eq!(stage.admin.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);
    // And it can be created again.
    stage.admin.execute("select sync_register_table('notes')", &[]).unwrap();
    assert_eq!(outcome(&mut stage.admin, &put(2, "b", 1)), Ok(1));
}

/// As for attached tables: their rows are written as they are attached now.
#[test]
fn a_transaction_that_sees_the_past_goes_by_the_tables_of_now() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    let mut first = stage.session();
    let mut transaction =
        first.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start().unwrap();
    assert_eq!(versions_seen(&mut transaction, "w"), [1]);
    stage.admin.execute("select sync_register_table('tasks')", &[]).unwrap();
    stage.admin.execute("select sync_unregister_table('notes')", &[]).unwrap();
    assert_eq!(outcome(&mut transaction, &put(3, "b", 1)), refused());
    assert_eq!(outcome(&mut transaction, &task(2)), Ok(2));
    transaction.commit().unwrap();
    assert_eq!(versions_seen(&mut stage.admin, "w"), [1, 2]);
}

#[test]
fn two_registrations_of_one_table_wait_for_each_other() {
    let mut stage = Stage::new();
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    transaction.execute("select sync_register_table('tasks', 'first')", &[]).unwrap();
    let waiting = stage.blocked(pid(&mut transaction), |second| {
        second.execute("select sync_register_table('tasks', 'second')", &[]).unwrap()
    });
    // Pushes of other tables do not wait.
    assert_eq!(outcome(&mut stage.admin, &put(1, "a", 1)), Ok(1));
    transaction.commit().unwrap();
    waiting.join().unwrap();
    let sql = "select pk_field from sync_ext.synced_table where table_name = 'tasks'";
    assert_eq!(stage.admin.query_one(sql, &[]).unwrap().get::<_, String>(0), "second");
}
