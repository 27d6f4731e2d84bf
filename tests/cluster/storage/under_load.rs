//! The ways to make tables and indexes smaller that the documents name, while clients
//! push and pull: no call fails, and nothing is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use sync_ext_harness::batch::{push, put, versions};
use sync_ext_harness::database::Database;
use sync_ext_harness::device::call;
use sync_ext_harness::soundness;
use sync_ext_harness::steps::{Stage, outcome, pid};

use super::{furnished, push_sql, refusal};

#[test]
fn tables_and_indexes_are_rebuilt_under_load() {
    let database = furnished();
    let mut admin = database.session();
    let is_over = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    let pushed = thread::scope(|scope| {
        let clients: Vec<_> = (1..=2)
            .map(|client| {
                let (database, is_over, calls) = (&database, &is_over, &calls);
                scope.spawn(move || push_and_pull(database, client, is_over, calls))
            })
            .collect();
        for round in 0..3 {
            for table in ["change_log", "record", "workspace", "device_cursor"] {
                for command in [
                    format!("reindex table concurrently sync_ext.{table}"),
                    format!("vacuum full sync_ext.{table}"),
                    format!("cluster sync_ext.{table} using {table}_pkey"),
                    format!("reindex table sync_ext.{table}"),
                ] {
                    admin.batch_execute(&command).unwrap_or_else(|e| panic!("{command}: {e:?}"));
                    // Each client comes through before the next.
                    let before = calls.load(Ordering::Relaxed);
                    while calls.load(Ordering::Relaxed) < before + 4 {
                        if clients.iter().any(|it| it.is_finished()) {
                            // Else the other one would go on, and be waited for.
                            is_over.store(true, Ordering::Relaxed);
                            panic!("{round}, {command}: a call failed");
                        }
                        thread::yield_now();
                    }
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|it| it.join().unwrap()).sum::<u64>()
    });
    let reply = call(&mut admin, "select sync_push('w', '[]')::text", &[]).unwrap();
    let head = 4 + pushed as i64;
    assert!(reply.ends_with(&format!("\"serverVersion\":{head}}}")), "{reply} for {pushed}");
    let count: i64 =
        admin.query_one("select count(*) from sync_ext.change_log", &[]).unwrap().get(0);
    assert_eq!(count, head);
    if soundness::is_checkable(&mut admin).unwrap() {
        soundness::check(&mut admin).unwrap();
    }
    println!("{pushed} pushed");
}

/// What REINDEX CONCURRENTLY does to the names, while a call waits for the index: of a session
/// that knows it, and of one that does not.
#[test]
fn an_index_that_is_replaced_meanwhile_is_looked_up_again() {
    for knows in [true, false] {
        let mut stage = Stage::on(furnished());
        let mut session = stage.session();
        let pull = "select sync_pull('w') -> 'nextCursor'";
        if knows {
            session.batch_execute(pull).unwrap();
        }
        let mut replacing = stage.holding(
            "",
            "reindex index sync_ext.change_log_pkey;
             alter index sync_ext.change_log_pkey rename to before;
             create unique index change_log_pkey on sync_ext.change_log (workspace_key, server_version);
             update pg_index set indisvalid = false where indexrelid = 'sync_ext.before'::regclass",
        );
        let holder = pid(&mut replacing);
        let waiting = stage.blocked_in(session, holder, move |session| outcome(session, pull));
        replacing.batch_execute("commit").unwrap();
        assert_eq!(waiting.join().unwrap().as_deref(), Ok("4"), "{knows}");
    }
}

#[test]
fn a_trigger_that_is_created_meanwhile_is_noticed() {
    for knows in [true, false] {
        let mut stage = Stage::on(furnished());
        let mut session = stage.session();
        if knows {
            session.batch_execute(&push_sql(10, "z", 1)).unwrap();
        }
        let mut creating = stage.holding(
            "",
            "create function nothing() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger t before insert on sync_ext.record for each row execute function nothing()",
        );
        let holder = pid(&mut creating);
        let waiting =
            stage.blocked_in(session, holder, |session| refusal(session, &push_sql(11, "z", 2)).1);
        creating.batch_execute("commit").unwrap();
        assert_eq!(waiting.join().unwrap(), "Trigger t of sync_ext.record is enabled.", "{knows}");
    }
}

#[test]
fn a_table_that_is_replaced_meanwhile_is_looked_up_again() {
    for knows in [true, false] {
        let mut stage = Stage::on(furnished());
        let mut session = stage.session();
        if knows {
            session.batch_execute(&push_sql(9, "w", 1)).unwrap();
        }
        stage.admin.batch_execute(&push_sql(10, "y", 1)).unwrap();
        let mut replacing = stage.holding(
            "",
            "alter table sync_ext.record rename to before;
             alter index sync_ext.record_pkey rename to before_pkey;
             create table sync_ext.record (like sync_ext.before including all);
             insert into sync_ext.record select * from sync_ext.before",
        );
        let holder = pid(&mut replacing);
        let waiting = stage.blocked_in(session, holder, |session| {
            // The first one's snapshot is older than the rows that were copied.
            [(11, "x"), (12, "y")].map(|(id, pk)| outcome(session, &push_sql(id, pk, 2)).map(drop))
        });
        replacing.batch_execute("commit").unwrap();
        assert_eq!(waiting.join().unwrap(), [Ok(()), Ok(())], "{knows}");
        let there = "select string_agg(pk || clock, ' ' order by pk) from sync_ext.record
                      where pk in ('x', 'y')";
        let there: String = stage.admin.query_one(there, &[]).unwrap().get(0);
        assert_eq!(there, "x2 y2", "{knows}");
    }
}

/// REINDEX locks one index after the other, so it deadlocks with who has used one of them and then
/// wants another.
#[test]
fn a_known_device_acknowledges_after_a_pull_without_another_index() {
    let mut stage = Stage::on(furnished());
    stage.admin.execute("select sync_update_cursor('w', 'tablet', 1)", &[]).unwrap();
    let mut session = stage.session();
    session.batch_execute("begin isolation level repeatable read; select sync_pull('w')").unwrap();
    // So that it has to look for the workspace as it is now.
    push(&mut stage.admin, "w", &[put(5, "c", 1)]);
    let holder = pid(&mut session);
    let reindex = "reindex table sync_ext.workspace";
    let waiting = stage.blocked(holder, move |session| outcome(session, reindex));
    let acknowledge = "select sync_update_cursor('w', 'tablet', 4) -> 'advanced'";
    assert_eq!(outcome(&mut session, acknowledge).as_deref(), Ok("true"));
    session.batch_execute("commit").unwrap();
    waiting.join().unwrap().unwrap();
}

fn push_and_pull(database: &Database, client: u64, is_over: &AtomicBool, calls: &AtomicU64) -> u64 {
    let mut session = database.session();
    let (mut pushed, mut cursor) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        // Now and then enough to be stored first and looked up later.
        let count = if pushed % 7 == 0 { 10 } else { 1 };
        let first = (client << 40) + pushed;
        let ops: Vec<String> = (first..first + count)
            .map(|id| put(id, &format!("p-{}", id % 500), 1 + pushed))
            .collect();
        push(&mut session, "w", &ops);
        pushed += count;
        let sql = "select sync_pull('w', $1, 1000)::text";
        let page = call(&mut session, sql, &[&cursor]).unwrap();
        for version in versions(&page, "changes") {
            assert_eq!(version, cursor + 1, "a version was passed over");
            cursor = version;
        }
        let sql = "select sync_update_cursor('w', $1, $2)::text";
        call(&mut session, sql, &[&format!("d-{client}"), &cursor]).unwrap();
        calls.fetch_add(1, Ordering::Relaxed);
    }
    pushed
}
