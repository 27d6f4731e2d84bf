//! What is counted, of which database, who is told, and since when.

use std::collections::BTreeMap;

use postgres::{Client, GenericClient};
use sync_ext_harness::batch::{delete, op, op_id, push, put};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::device::call;
use sync_ext_harness::steps::{acknowledge, age, gc, pull, speak_for};

use crate::patching::{allow_patches, patch, with};

type Counters = BTreeMap<String, i64>;

#[test]
fn what_is_done_is_counted() {
    let settings = ["fsync=off", "shared_preload_libraries=sync_ext"];
    let mut cluster = Cluster::start("counters", &settings).unwrap();
    let mut client = cluster.create_database("counted").unwrap();
    let register = "select sync_register_table('notes'),
      sync_register_table('diary', owner_field => 'by'), sync_create_workspace('team', 'ann')";
    client.batch_execute(register).unwrap();
    ops_are_counted_by_what_became_of_them(&mut client);
    patches_are_counted_as_other_ops(&mut client);
    every_call_is_counted_once(&mut client);
    what_gc_deleted_is_counted_not_what_it_read(&mut client);
    what_was_rolled_back_was_done(&mut client);
    users_see_no_counters(&mut client);
    each_database_has_its_own(&cluster, &mut client);
    drop(client);
    they_begin_with_the_server(&mut cluster);
}

fn counters(client: &mut impl GenericClient) -> Counters {
    let rows = client.query("select counter, value from sync_ext.counter", &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What has grown by a step, and by how much.
fn grown<T>(client: &mut Client, step: impl FnOnce(&mut Client) -> T) -> Counters {
    let before = counters(client);
    step(client);
    let mut after = counters(client);
    after.iter_mut().for_each(|(name, value)| *value -= before[name]);
    after.retain(|_, by| *by != 0);
    after
}

fn of<const N: usize>(expected: [(&str, i64); N]) -> Counters {
    expected.map(|(name, by)| (name.to_owned(), by)).into()
}

fn push_any(client: &mut Client, ops: &[String]) {
    let ops = format!("[{}]", ops.join(","));
    call(client, "select sync_push('team', $1::text::json)::text", &[&ops]).unwrap();
}

fn ops_are_counted_by_what_became_of_them(client: &mut Client) {
    let in_diary = |id, by: &str| {
        op(id, "page", 1, "put", &format!("{{\"by\":\"{by}\"}}")).replace("notes", "diary")
    };
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(100));
    let stored = [put(1, "a", 3), put(2, "a", 2), put(3, "a", 1), put(4, "b", 1)];
    assert_eq!(
        grown(client, |client| push_any(client, &stored)),
        of([("pushes", 1), ("ops_applied", 2), ("ops_lost", 2)])
    );
    // Sent again they are neither applied nor lost.
    assert_eq!(
        grown(client, |client| push_any(client, &stored)),
        of([("pushes", 1), ("ops_replayed", 4)])
    );
    client.batch_execute("set sync_ext.max_payload_bytes = 50").unwrap();
    let refused = [
        "{}".to_owned(),
        "[]".to_owned(),
        "1".to_owned(),
        op(5, "c", 1, "put", &large),
        put(1, "another", 1),
        put(2, "another", 1),
        in_diary(6, "bob"),
        in_diary(7, "ann"),
    ];
    let by_ann = |client: &mut Client| {
        speak_for(client, "ann");
        push_any(client, &refused);
        speak_for(client, "");
    };
    let expected = of([
        ("pushes", 1),
        ("ops_applied", 1),
        ("ops_refused_validation", 3),
        ("ops_refused_oversized", 1),
        ("ops_refused_conflict", 2),
        ("ops_refused_unauthorized", 1),
    ]);
    assert_eq!(grown(client, by_ann), expected);
    client.batch_execute("reset sync_ext.max_payload_bytes").unwrap();
}

fn patches_are_counted_as_other_ops(client: &mut Client) {
    allow_patches(client);
    let of_a = |id, clock, payload| patch(id, "a", clock, (1, 3), payload);
    let expects = |id: u64, expected: &str| {
        with(&of_a(id, 9, "{\"x\":9}"), &format!("\"expected\":{expected}"))
    };
    let ops = [
        of_a(10, 5, "{\"x\":5}"),
        of_a(11, 4, "{\"x\":4,\"y\":4}"),
        of_a(12, 4, "{\"x\":4}"),
        patch(13, "a", 9, (77, 8), "{\"x\":9}"),
        expects(14, "\"none\""),
        expects(15, &format!("\"{}\"", op_id(1))),
        expects(16, &format!("{{\"x\":\"{}\"}}", op_id(1))),
    ];
    let expected = of([
        ("pushes", 1),
        ("ops_applied", 2),
        ("ops_lost", 1),
        ("ops_refused_base_missing", 1),
        ("ops_refused_record_conflict", 2),
        ("ops_refused_field_conflict", 1),
    ]);
    assert_eq!(grown(client, |client| push_any(client, &ops)), expected);
    let rejecting = "create function no(json, json, json) returns text language sql return 'no';
                     select sync_register_table('never', validation => 'no(json,json,json)')";
    client.batch_execute(rejecting).unwrap();
    let never = |id| put(id, "a", 1).replace("notes", "never");
    assert_eq!(
        grown(client, |client| push_any(client, &[never(20), put(21, "r", 1), never(22)])),
        of([("pushes", 1), ("ops_applied", 1), ("ops_refused_rejected", 2)])
    );
}

fn every_call_is_counted_once(client: &mut Client) {
    let run = |sql: &'static str| move |client: &mut Client| client.batch_execute(sql).unwrap();
    let writes = "select sync_put('team', 'notes', 'sql', '{}'), sync_delete('team', 'notes', 'sql'),
                    sync_patch('team', 'notes', 'sql', '{\"n\": 1}'), sync_put('team', 'notes', '', '{}')";
    let expected =
        [("pushes", 4), ("ops_applied", 2), ("ops_lost", 1), ("ops_refused_validation", 1)];
    assert_eq!(grown(client, run(writes)), of(expected));
    assert_eq!(grown(client, |client| pull(client, "team", 0, 1, None)), of([("pulls", 1)]));
    assert_eq!(
        grown(client, |client| pull(client, "team", 70, 1, None)),
        of([("pulls", 1), ("snapshots_required", 1)])
    );
    assert_eq!(grown(client, run("select sync_snapshot('team')")), of([("snapshot_pages", 1)]));
    assert_eq!(
        grown(client, |client| acknowledge(client, "team", "phone", 1)),
        of([("acknowledgements", 1)])
    );
    assert_eq!(
        grown(client, run("select sync_exchange('team', 'phone', 2, '[]')")),
        of([("pushes", 1), ("pulls", 1), ("acknowledgements", 1)])
    );
    assert_eq!(grown(client, run("select sync_status(), sync_list_workspaces()")), of([]));
}

fn what_gc_deleted_is_counted_not_what_it_read(client: &mut Client) {
    push(client, "old", &[put(1, "a", 1), delete(2, "a", 2), put(3, "b", 1), put(4, "c", 1)]);
    age(client);
    let collect = |client: &mut Client| assert_eq!(gc(client, "old")["scanned"], 3);
    assert_eq!(grown(client, collect), of([("gc_runs", 1), ("gc_entries_deleted", 2)]));
}

fn what_was_rolled_back_was_done(client: &mut Client) {
    let roll_back = |client: &mut Client| {
        let mut transaction = client.transaction().unwrap();
        push(&mut transaction, "never", &[put(1, "a", 1)]);
        transaction.rollback().unwrap();
    };
    assert_eq!(grown(client, roll_back), of([("pushes", 1), ("ops_applied", 1)]));
}

/// Others' work would show.
fn users_see_no_counters(client: &mut Client) {
    assert!(!counters(client).is_empty());
    speak_for(client, "ann");
    assert_eq!(counters(client), of([]));
    for sql in ["sync_ext.counters()", "sync_status() -> 'counters'"] {
        let sql = format!("select coalesce(({sql})::text, 'null')");
        assert_eq!(call(client, &sql, &[]).unwrap(), "null", "{sql}");
    }
    speak_for(client, "");
}

fn each_database_has_its_own(cluster: &Cluster, client: &mut Client) {
    let before = counters(client);
    let mut other = cluster.create_database("other").unwrap();
    assert!(counters(&mut other).values().all(|value| *value == 0));
    other.batch_execute("select sync_register_table('notes')").unwrap();
    push(&mut other, "w", &[put(1, "a", 1)]);
    assert_eq!(counters(&mut other)["pushes"], 1);
    // All sessions of a database see the same.
    assert_eq!(counters(client), before);
    assert_eq!(counters(&mut cluster.connect("counted").unwrap()), before);
}

fn they_begin_with_the_server(cluster: &mut Cluster) {
    cluster.stop_server(Stop::Cleanly).unwrap();
    cluster.start_server().unwrap();
    let begun = counters(&mut cluster.connect("counted").unwrap());
    assert!(begun.len() > 10 && begun.values().all(|value| *value == 0), "{begun:?}");
}
