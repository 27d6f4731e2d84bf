//! A streaming standby: reading works there, lag is told as lag, and after a
//! promotion devices go on.

use postgres::error::SqlState;
use postgres::{Client, IsolationLevel};
use serde_json::Value;
use sync_ext_harness::batch::{delete, push, put, versions};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::device::{Device, Listed, Listing, call};
use sync_ext_harness::replica::{pause_replay, promote, resume_replay, until_replayed};
use sync_ext_harness::state::of_server;
use sync_ext_harness::steps;

fn pull(client: &mut Client, workspace: &str, cursor: i64, proof: Option<&str>) -> Value {
    steps::pull(client, workspace, cursor, 100, proof)
}

#[test]
fn a_standby_reads_and_answers_lag_as_lag() {
    let settings = ["fsync=off", "max_standby_streaming_delay=-1"];
    let mut primary = Cluster::start("primary", &settings).unwrap();
    let mut on_primary = primary.create_database("app").unwrap();
    on_primary.execute("select sync_register_table('notes')", &[]).unwrap();
    push(&mut on_primary, "w", &[put(1, "a", 1), put(2, "b", 1)]);
    let standby = primary.standby("standby").unwrap();
    let mut on_standby = standby.connect("app").unwrap();
    until_replayed(&mut on_primary, &mut on_standby);

    it_reads_what_the_primary_reads(&mut on_primary, &mut on_standby);
    a_puller_with_one_snapshot_does_not_see_gc(&mut on_primary, &mut on_standby);
    writing_is_refused_in_the_words_of_postgres(&mut on_standby);
    pause_replay(&mut on_standby);
    push(&mut on_primary, "w", &[put(3, "c", 1)]);
    push(&mut on_primary, "new", &[put(1, "a", 1)]);
    what_is_ahead_is_lag(&mut on_primary, &mut on_standby);
    let (mut begun, mut discarded) =
        snapshots_on_a_lagging_standby(&mut on_primary, &mut on_standby);

    // A transaction that began now keeps this view of the world, also when the
    // server is a primary in the meantime: lag it stays.
    let mut old_view = standby.connect("app").unwrap();
    old_view.batch_execute("begin isolation level repeatable read").unwrap();
    assert_eq!(pull(&mut old_view, "w", 3, None)["requiresSnapshot"], false);

    // It catches up, then is promoted; devices go on with cursor and proof.
    resume_replay(&mut on_standby);
    until_replayed(&mut on_primary, &mut on_standby);
    let server = of_server(&mut on_primary, "w").unwrap();
    let (device, listing) = &mut begun;
    assert_eq!(device.snapshot_page(listing, &mut on_standby, 500).unwrap(), Listed::Whole);
    assert_eq!((device.cursor, device.state()), (3, server.clone()));
    assert!(discarded.snapshot(&mut on_standby, 1).unwrap());
    assert_eq!((discarded.cursor, discarded.state()), (3, server));
    let mut device = Device::new("phone", "w");
    device.pull(&mut on_primary, 100, false).unwrap();
    primary.stop_server(Stop::Immediately).unwrap();
    promote(&mut on_standby);
    assert_eq!(pull(&mut old_view, "w", 3, None)["requiresSnapshot"], false);
    old_view.batch_execute("commit").unwrap();
    assert_eq!(push(&mut on_standby, "w", &[put(4, "d", 1)]), [4]);
    assert_eq!(device.pull(&mut on_standby, 100, false).unwrap(), 1);
    assert_eq!(device.state(), of_server(&mut on_standby, "w").unwrap());
}

/// The same page, with the same proof; a snapshot too, and what operators read.
fn it_reads_what_the_primary_reads(primary: &mut Client, standby: &mut Client) {
    for sql in [
        "select sync_list_workspaces()::text",
        "select sync_status()::text",
        "select sync_explain('w', 'notes', 'a')::text",
        "select string_agg(c::text, ' ') from sync_ext.current_record as c",
        "select string_agg(s::text, ' ') from sync_ext.workspace_status as s",
    ] {
        assert_eq!(call(standby, sql, &[]).unwrap(), call(primary, sql, &[]).unwrap(), "{sql}");
    }
    let scoped = "select sync_pull('w', scopes => '{x}')::text";
    assert_eq!(call(standby, scoped, &[]).unwrap(), call(primary, scoped, &[]).unwrap());
    let page = pull(standby, "w", 0, None);
    assert_eq!(page, pull(primary, "w", 0, None));
    let mut fresh = Device::new("fresh", "w");
    fresh.snapshot(standby, 1).unwrap();
    assert_eq!(fresh.state(), of_server(primary, "w").unwrap());
}

fn writing_is_refused_in_the_words_of_postgres(standby: &mut Client) {
    for sql in [
        "select sync_push('w', '[]'::json)",
        "select sync_update_cursor('w', 'd', 0)",
        "select sync_exchange('w', 'd', 0, '[]'::json)",
        "select sync_gc()",
        "select sync_register_table('t')",
        "select sync_unregister_table('t')",
        "call sync_set_scope_field('notes', 'list')",
        "select sync_create_workspace('v', 'ann')",
        "select sync_drop_workspace('w')",
        "select sync_set_member('w', 'ann', 'owner')",
        "select sync_remove_member('w', 'ann')",
    ] {
        let error = standby.query(sql, &[]).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION), "{sql}");
    }
}

/// What a device saw on the primary: it waits, and is not sent to a snapshot.
fn what_is_ahead_is_lag(primary: &mut Client, standby: &mut Client) {
    let ahead = pull(primary, "w", 2, None);
    let proof = ahead["proof"].as_str().unwrap();
    for (workspace, cursor, proof) in [
        ("w", 3, None),
        ("w", 3, Some(proof)),
        ("w", 1, Some(proof)),
        ("new", 1, None),
        ("new", 0, Some(proof)),
    ] {
        let lag = pull(standby, workspace, cursor, proof);
        assert_eq!(lag["requiresSnapshot"], false, "{lag}");
        assert_eq!(lag["changes"], Value::Array(vec![]), "{lag}");
        assert_eq!(lag["nextCursor"], cursor, "{lag}");
        assert_eq!(lag["proof"].as_str(), proof, "handed back as given: {lag}");
    }
    // On the primary the same is a reason.
    assert_eq!(pull(primary, "unknown", 1, None)["reason"], "unknown_workspace");

    // A snapshot begun on the primary, ahead, waits too.
    let first = call(primary, "select sync_snapshot('w', null, 1)::text", &[]).unwrap();
    let first: Value = serde_json::from_str(&first).unwrap();
    let token = first["nextPageToken"].as_str().unwrap();
    let error = standby.query("select sync_snapshot('w', $1)", &[&token]).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "SX002");
    assert_eq!(error.message(), "standby is behind the snapshot");
}

/// One device that began on the primary and cannot go on here yet; one that
/// has seen more than the standby has, and so discards what that lists.
fn snapshots_on_a_lagging_standby(
    primary: &mut Client,
    standby: &mut Client,
) -> ((Device, Listing), Device) {
    let (mut begun, mut listing) = (Device::new("begun", "w"), Listing::default());
    assert_eq!(begun.snapshot_page(&mut listing, primary, 1).unwrap(), Listed::More);
    for _ in 0..2 {
        assert_eq!(begun.snapshot_page(&mut listing, standby, 1).unwrap(), Listed::Behind);
    }

    let mut ahead = Device::new("ahead", "w");
    ahead.pull(primary, 100, false).unwrap();
    let before = ahead.clone();
    let mut whole = Listing::default();
    assert_eq!(ahead.snapshot_page(&mut whole, standby, 500).unwrap(), Listed::Old);
    assert_eq!((&ahead.synced, ahead.cursor), (&before.synced, 3));
    assert_eq!(ahead.proof, before.proof);
    assert!(!ahead.snapshot_begun, "as if it had not begun: the next pull tells");
    ((begun, listing), ahead)
}

/// GC's deletes arrive on the standby while the transaction reads, and what
/// vacuum then takes away waits for it there.
fn a_puller_with_one_snapshot_does_not_see_gc(primary: &mut Client, standby: &mut Client) {
    let mut transaction = primary.transaction().unwrap();
    let ops = [put(1, "a", 1), put(2, "a", 2), delete(3, "b", 1), put(4, "c", 1)];
    push(&mut transaction, "pages", &ops);
    steps::age(&mut transaction);
    transaction.commit().unwrap();
    until_replayed(primary, standby);

    let page = |standby: &mut postgres::Transaction<'_>, cursor| {
        versions(&steps::pull(standby, "pages", cursor, 1, None).to_string(), "changes")
    };
    let level = IsolationLevel::RepeatableRead;
    let mut transaction = standby.build_transaction().isolation_level(level).start().unwrap();
    assert_eq!(page(&mut transaction, 0), [1]);
    assert_eq!(steps::gc(primary, "pages")["tombstonesDeleted"], 1);
    until_replayed(primary, &mut transaction);
    assert_eq!(page(&mut transaction, 0), [1]);
    assert_eq!(page(&mut transaction, 1), [2]);
    primary.batch_execute("vacuum sync_ext.change_log, sync_ext.record").unwrap();
    assert_eq!(page(&mut transaction, 2), [3]);
    assert_eq!(page(&mut transaction, 3), [4]);
    transaction.commit().unwrap();
    until_replayed(primary, standby);
    assert_eq!(pull(standby, "pages", 2, None)["reason"], "cursor_expired");
    assert_eq!(pull(standby, "pages", 3, None)["changes"][0]["serverVersion"], 4);
}
