//! What a refused user can tell of a workspace that is not theirs: nothing, not
//! even that it is there. Shown by what the server does rather than by how long
//! it takes: a refused call reads the same rows through the same indexes, takes
//! the same locks and answers in the same words, whether it is about a workspace
//! that does not exist, one of others, or one that the user was removed from.

use postgres::error::DbError;
use postgres::{Client, GenericClient};
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use sync_ext_harness::state::tables;
use sync_ext_harness::steps::acknowledge;

use super::{CALLS, alone, furnished, refused, speak_for, speaking_for};

fn world() -> Database {
    let app = furnished();
    fill(&mut app.session());
    app
}

/// Dan was an editor of `left`, with a device, an entry and a private record.
fn fill(admin: &mut Client) {
    admin
        .batch_execute(
            "select sync_create_workspace('left', 'ann'), sync_set_member('left', 'dan', 'editor');
             set sync_ext.user_id = 'dan'",
        )
        .unwrap();
    push(admin, "left", &[put(1, "a", 1), put(2, "b", 1).replace("\"notes\"", "\"diary\"")]);
    acknowledge(admin, "left", "phone", 2);
    admin
        .batch_execute("reset sync_ext.user_id; select sync_remove_member('left', 'dan')")
        .unwrap();
}

/// Workspaces that are none of dan's business: the first does not exist.
const FOREIGN: [&str; 4] = ["nowhere", "den", "left", "team"];

/// Calls that are refused to all but members, on any workspace `$1`.
fn calls() -> impl Iterator<Item = (&'static str, &'static str)> {
    CALLS.into_iter().chain([
        ("create_workspace for another", "select sync_create_workspace($1, 'ann')"),
        ("push of nothing", "select sync_push($1, '[]')"),
        ("pull of a version", "select sync_pull($1, 1)"),
        (
            "pull with a proof",
            "select sync_pull($1, 1, proof => 'p1.1.00000000000000000000000000000000')",
        ),
        ("acknowledgement", "select sync_update_cursor($1, 'phone', 2)"),
        ("demotion", "select sync_set_member($1, 'ann', 'viewer')"),
        ("removal", "select sync_remove_member($1, 'ann')"),
    ])
}

fn refusal(session: &mut impl GenericClient, sql: &str, workspace: &str) -> DbError {
    session.batch_execute("savepoint tried").unwrap();
    let Err(error) = session.query(sql, &[&workspace]) else { panic!("not refused: {sql}") };
    session.batch_execute("rollback to tried; release tried").unwrap();
    error.as_db_error().unwrap().clone()
}

#[test]
fn refusals_are_the_same_to_the_letter() {
    let app = &world();
    let mut session = speaking_for(app, "dan");
    let mut transaction = session.transaction().unwrap();
    for (name, sql) in calls() {
        let unknown = refusal(&mut transaction, sql, FOREIGN[0]);
        assert_eq!(unknown.code().code(), "42501", "{name}");
        let message = match name {
            "create_workspace for another" => "only trusted callers may do this",
            _ => "permission denied for workspace",
        };
        assert_eq!(unknown.message(), message, "{name}");
        for workspace in &FOREIGN[1..] {
            assert_eq!(refusal(&mut transaction, sql, workspace), unknown, "{name}");
        }
    }
    // Arguments are looked at afterwards, if at all.
    for sql in [
        "select sync_pull($1, -1)",
        "select sync_pull($1, proof => 'x')",
        "select sync_push($1, '{}')",
        "select sync_exchange($1, 'phone', -1, '[]')",
        "select sync_exchange($1, '', 0, '[]')",
        "select sync_exchange($1, 'phone', 0, '{}')",
        "select sync_snapshot($1, 'x')",
        "select sync_update_cursor($1, '', 0)",
        "select sync_forget_device($1, '')",
        "select sync_set_member($1, 'ann', 'x')",
        "select sync_remove_member($1, '')",
        "select sync_get_role($1, '')",
        "select sync_gc($1, '1 second')",
        "select sync_drop_workspace($1, 0)",
    ] {
        let unknown = refusal(&mut transaction, sql, FOREIGN[0]);
        assert_eq!(unknown.code().code(), "42501", "{sql}");
        for workspace in &FOREIGN[1..] {
            assert_eq!(refusal(&mut transaction, sql, workspace), unknown, "{sql}");
        }
    }
    let may_read = "select sync_ext.may_read($1)::text";
    for workspace in FOREIGN {
        assert_eq!(call(&mut transaction, may_read, &[&workspace]).unwrap(), "false");
    }
}

/// What this transaction has done so far: for each table and index of the
/// database that it used, scans, rows and pages read, and rows written.
fn work_done(session: &mut impl GenericClient) -> Vec<(String, [i64; 7])> {
    let sql = "select oid::regclass::text,
                      array[pg_stat_get_xact_numscans(oid), pg_stat_get_xact_tuples_returned(oid),
                        pg_stat_get_xact_tuples_fetched(oid), pg_stat_get_xact_blocks_fetched(oid),
                        pg_stat_get_xact_tuples_inserted(oid), pg_stat_get_xact_tuples_updated(oid),
                        pg_stat_get_xact_tuples_deleted(oid)]
                 from pg_class where relnamespace = 'sync_ext'::regnamespace order by 1";
    let rows = session.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get::<_, Vec<i64>>(1).try_into().unwrap())).collect()
}

/// The work of some calls in a row.
fn work_of(
    session: &mut impl GenericClient,
    sql: &str,
    workspace: &str,
    count: i64,
) -> Vec<(String, [i64; 7])> {
    let before = work_done(session);
    for _ in 0..count {
        if sql.contains("may_read") {
            session.query(sql, &[&workspace]).unwrap();
        } else {
            refusal(session, sql, workspace);
        }
    }
    let mut work = work_done(session);
    for ((_, after), (_, before)) in work.iter_mut().zip(&before) {
        for (after, before) in after.iter_mut().zip(before) {
            *after -= before;
        }
    }
    work.retain(|(_, counts)| *counts != [0; 7]);
    work
}

/// In a cluster of its own: what other sessions may still see keeps dead index entries.
#[test]
fn refusals_are_the_same_work() {
    let app = &alone("refusals");
    fill(&mut app.session());
    let mut session = speaking_for(app, "dan");
    let mut transaction = session.transaction().unwrap();
    for (name, sql) in calls().chain([("may_read", "select sync_ext.may_read($1)")]) {
        // The first call of a session fills caches; the first that meets a member
        // who was removed marks the index entry as dead.
        for workspace in FOREIGN {
            work_of(&mut transaction, sql, workspace, 1);
        }
        let unknown = work_of(&mut transaction, sql, FOREIGN[0], 10);
        for workspace in &FOREIGN[1..] {
            assert_eq!(
                work_of(&mut transaction, sql, workspace, 10),
                unknown,
                "{name}, {workspace}"
            );
        }
        // It counts: of ten calls each has looked for dan among the members.
        if name != "create_workspace for another" {
            let looked_up = unknown.iter().find(|(table, _)| table == "sync_ext.member_pkey");
            assert_eq!(looked_up.map(|(_, counts)| counts[0]), Some(10), "{name}: {unknown:?}");
        }
        let written: i64 = unknown.iter().flat_map(|(_, counts)| &counts[4..]).sum();
        assert_eq!(written, 0, "{name}: {unknown:?}");
    }
    let xid = "select coalesce(pg_current_xact_id_if_assigned()::text, 'none')";
    assert_eq!(call(&mut transaction, xid, &[]).unwrap(), "none");
}

/// A workspace that somebody is writing to would be told by the waiting.
#[test]
fn a_refused_call_neither_waits_nor_writes() {
    let app = &world();
    let admin = &mut app.session();
    let before = tables(admin).unwrap();
    let mut holder = app.session();
    holder.batch_execute("begin; lock table sync_ext.workspace in row exclusive mode").unwrap();
    holder.batch_execute("select from sync_ext.workspace for update").unwrap();
    let mut session = speaking_for(app, "dan");
    // Were it to wait, this would be told instead.
    session.batch_execute("begin; set local lock_timeout = '1s'").unwrap();
    for (name, sql) in calls() {
        for workspace in FOREIGN {
            assert_eq!(refusal(&mut session, sql, workspace).code().code(), "42501", "{name}");
        }
    }
    session.batch_execute("commit").unwrap();
    holder.batch_execute("rollback").unwrap();
    assert_eq!(tables(admin).unwrap(), before);
}

#[test]
fn only_members_learn_that_their_role_is_too_small() {
    let app = &world();
    let mut session = speaking_for(app, "vic");
    let mut transaction = session.transaction().unwrap();
    for (name, sql) in CALLS {
        let needed = match name {
            "pull" | "snapshot" | "update_cursor" | "forget_device" => continue,
            "push" | "put" | "patch" | "delete" | "exchange" => "editor",
            _ => "owner",
        };
        let denied = refusal(&mut transaction, sql, "team");
        assert_eq!(denied.message(), "permission denied for workspace", "{name}");
        let detail = format!("The user's role is viewer; this needs {needed}.");
        assert_eq!(denied.detail(), Some(detail.as_str()), "{name}");
        assert_eq!(
            refusal(&mut transaction, sql, "den").detail(),
            Some("It does not exist, or the user is not a member of it."),
        );
    }
}

/// That it is taken cannot be hidden from who wants to create it, but whose it
/// is and what is in it can.
#[test]
fn only_members_learn_that_a_name_is_taken() {
    let app = &world();
    let mut session = speaking_for(app, "dan");
    for workspace in &FOREIGN[1..] {
        let sql = format!("select sync_create_workspace('{workspace}', 'dan')");
        let told = refused(&mut session, &sql);
        assert_eq!(told, ("42501".to_owned(), "permission denied for workspace".to_owned()));
    }
    speak_for(&mut session, "vic");
    let told = refused(&mut session, "select sync_create_workspace('team', 'vic')");
    assert_eq!(told, ("42710".to_owned(), "workspace already exists".to_owned()));
}
