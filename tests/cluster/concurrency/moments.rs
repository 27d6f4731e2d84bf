//! Which moment a call tells of when others commit while it waits.

use serde_json::Value;
use sync_ext_harness::batch::{delete, push, put, versions};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{Stage, pid};

use crate::patching::{allow_patches, patch};

/// LWW is decided by the record as it is once the lock is got.
#[test]
fn a_push_that_waited_loses_to_what_it_waited_for() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1), put(2, "b", 1), put(3, "c", 5)]);

    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    push(&mut transaction, "w", &[put(4, "a", 7), delete(5, "b", 7), put(6, "d", 7)]);
    let late = [put(11, "a", 6), put(12, "b", 6), put(13, "c", 6), put(14, "d", 6)];
    let late = format!("[{}]", late.join(","));
    let waiting = stage.blocked(pid(&mut transaction), move |second| {
        call(second, "select sync_push('w', $1::text::json)::text", &[&late]).unwrap()
    });
    let admin = &mut stage.admin;
    let now = call(admin, "select clock_timestamp()::text", &[]).unwrap();
    transaction.commit().unwrap();

    let reply: Value = serde_json::from_str(&waiting.join().unwrap()).unwrap();
    let told: Vec<_> = reply["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["applied"].as_bool(), item["winner"]["serverVersion"].as_i64()))
        .collect();
    let lost_to = |version| (Some(false), Some(version));
    assert_eq!(told, [lost_to(4), lost_to(5), (Some(true), None), lost_to(6)]);
    let winners = "select string_agg(pk || server_version, ' ' order by pk) from sync_ext.record";
    assert_eq!(call(admin, winners, &[]).unwrap(), "a4 b5 c9 d6");
    let logged_later = "select bool_and(created_at > $1::text::timestamptz)::text
                          from sync_ext.change_log where server_version > 6";
    assert_eq!(call(admin, logged_later, &[&now]).unwrap(), "true", "under the lock");
}

/// So a server op that waited has seen what it waited for, patches too, and beats it.
#[test]
fn a_server_op_that_waited_wins_over_what_it_waited_for() {
    let mut stage = Stage::new();
    allow_patches(&mut stage.admin);
    push(&mut stage.admin, "w", &[put(1, "a", 1), put(2, "b", 1), put(3, "c", 1)]);
    let calls = [
        ("sync_put('w', 'notes', 'a', '{\"n\":0}')", "a"),
        ("sync_patch('w', 'notes', 'b', '{\"n\":0}')", "b"),
        ("sync_delete('w', 'notes', 'c')", "c"),
        ("sync_put('w', 'notes', 'new', '{\"n\":0}')", "new"),
    ];
    for ((sql, pk), id) in calls.into_iter().zip((100..).step_by(10)) {
        let mut first = stage.session();
        let mut transaction = first.transaction().unwrap();
        let meanwhile =
            [put(id, pk, 20), patch(id + 1, pk, 40, (id, 20), "{\"n\":40,\"other\":40}")];
        push(&mut transaction, "w", &meanwhile);
        let waiting = stage.blocked(pid(&mut transaction), move |second| {
            call(second, &format!("select {sql}::text"), &[]).unwrap()
        });
        transaction.commit().unwrap();

        let item: Value = serde_json::from_str(&waiting.join().unwrap()).unwrap();
        assert_eq!(item["applied"], true, "{sql}: {item}");
        let op = "select clock || ' ' || coalesce(payload::text, 'none') from sync_ext.change_log
                    where pk = $1 order by server_version desc limit 1";
        let expected = match pk {
            "b" => "41 {\"n\":0,\"other\":40}",
            "c" => "41 none",
            _ => "41 {\"n\":0}",
        };
        assert_eq!(call(&mut stage.admin, op, &[&pk]).unwrap(), expected, "{sql}");
    }
}

/// What it is given is the record as it is under the lock.
#[test]
fn a_validation_function_sees_what_its_push_waited_for() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    stage
        .admin
        .batch_execute(
            "create function shown(json, json, json) returns text language plpgsql as $$ begin
               return concat_ws(' ', $2, (select r.server_version from sync_ext.record r));
             end $$;
             select sync_register_table('notes', validation => 'shown(json,json,json)')",
        )
        .unwrap();
    let mut first = stage.session();
    let mut transaction = first.transaction().unwrap();
    transaction.batch_execute("select sync_register_table('notes')").unwrap();
    push(&mut transaction, "w", &[put(2, "a", 2)]);
    let waiting = stage.blocked(pid(&mut transaction), |second| {
        let sql = "select sync_put('w', 'notes', 'a', '{}') ->> 'error'";
        call(second, sql, &[]).unwrap()
    });
    transaction.rollback().unwrap();
    assert_eq!(waiting.join().unwrap(), "{\"n\":1} 1");

    let mut transaction = first.transaction().unwrap();
    transaction.batch_execute("select sync_unregister_table('notes')").unwrap();
    transaction.batch_execute("select sync_register_table('notes')").unwrap();
    push(&mut transaction, "w", &[put(3, "a", 3)]);
    transaction
        .batch_execute("select sync_register_table('notes', validation => 'shown(json,json,json)')")
        .unwrap();
    let waiting = stage.blocked(pid(&mut transaction), |second| {
        let sql = "select sync_put('w', 'notes', 'a', '{}') ->> 'error'";
        call(second, sql, &[]).unwrap()
    });
    transaction.commit().unwrap();
    assert_eq!(waiting.join().unwrap(), "{\"n\":3} 2");
}

/// Head, changes and proof are of one moment, that of the statement: were the
/// head a later one, a puller would step over what lies between.
#[test]
fn a_pull_shows_the_state_of_its_statement() {
    let mut stage = Stage::new();
    push(&mut stage.admin, "w", &[put(1, "a", 1)]);
    let before = call(&mut stage.admin, "select sync_pull('w')::text", &[]).unwrap();

    let mut holder = stage.session();
    holder.execute("select pg_advisory_lock(1)", &[]).unwrap();
    // The statement has its snapshot before it waits, and pulls afterwards.
    let waiting = stage.blocked(pid(&mut holder), |puller| {
        let sql =
            "select case when pg_advisory_lock(1) is null then '' else sync_pull('w')::text end";
        call(puller, sql, &[]).unwrap()
    });
    push(&mut stage.admin, "w", &[put(2, "b", 1)]);
    holder.execute("select pg_advisory_unlock(1)", &[]).unwrap();

    assert_eq!(waiting.join().unwrap(), before);
    let after = call(&mut stage.admin, "select sync_pull('w')::text", &[]).unwrap();
    assert_eq!(versions(&after, "changes"), [1, 2]);
}
