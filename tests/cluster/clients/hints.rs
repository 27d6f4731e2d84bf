//! Hints of the worker, which are sent off the path of commits.

use std::thread;
use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use postgres::Client;
use serde_json::Value;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::cluster::{Cluster, Stop};
use sync_ext_harness::device::call;
use sync_ext_harness::replica::until;

pub(super) const DEADLINE: Duration = Duration::from_secs(60);

const PRELOADED: [&str; 2] = ["fsync=off", "shared_preload_libraries=sync_ext"];

/// The worker of a database; NULL if it has none.
pub(super) const WORKER: &str = "select (select pid from pg_stat_activity
  where backend_type = 'sync_ext notifier' and datname = current_database())";
pub(super) const HAS_WORKER: &str = "select exists (select from pg_stat_activity
  where backend_type = 'sync_ext notifier' and datname = current_database())::text";

pub(super) struct App {
    pub cluster: Cluster,
    pub admin: Client,
    pub listener: Client,
}

impl App {
    pub fn start(name: &str, settings: &[&str]) -> App {
        let settings = [&PRELOADED, settings].concat();
        let cluster = Cluster::start(name, &settings).unwrap();
        let mut admin = cluster.create_database("app").unwrap();
        admin.batch_execute("select sync_register_table('notes')").unwrap();
        let mut listener = cluster.connect("app").unwrap();
        listener.batch_execute("listen sync_ext").unwrap();
        // A commit that finds no worker calls for one.
        push(&mut admin, "first", &[put(1, "a", 1)]);
        until(&mut admin, HAS_WORKER, "true");
        App { cluster, admin, listener }
    }

    pub fn worker(&mut self) -> i32 {
        self.admin.query_one(WORKER, &[]).unwrap().get(0)
    }

    /// Returns when the worker has told all that happened before. It may have begun before
    /// anybody listened, or be about to begin.
    pub fn hear_first(&mut self) {
        let me = pid(&mut self.admin);
        for head in 1.. {
            push(&mut self.admin, "ready", &[put(head, "a", head)]);
            let ready = Hint::Of("ready".to_owned(), head as i64);
            loop {
                match next(&mut self.listener) {
                    (by, told) if by != me && told == ready => return,
                    // It may stand for that one.
                    (_, Hint::All) => break,
                    _ => {}
                }
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    All,
    Of(String, i64),
}

/// Who sent it, and what it says.
pub(super) fn next(listener: &mut Client) -> (i32, Hint) {
    let mut coming = listener.notifications();
    let next = coming.timeout_iter(DEADLINE).next().unwrap().expect("a hint");
    (next.process_id(), hint(next.payload()))
}

pub(super) fn hint(payload: &str) -> Hint {
    let told: Value = serde_json::from_str(payload).unwrap();
    match told["workspaceId"].as_str() {
        Some(workspace) => Hint::Of(workspace.to_owned(), told["serverVersion"].as_i64().unwrap()),
        None => {
            assert_eq!(payload, r#"{"workspaceId":null}"#);
            Hint::All
        }
    }
}

pub(super) fn pid(client: &mut Client) -> i32 {
    client.query_one("select pg_backend_pid()", &[]).unwrap().get(0)
}

#[test]
fn where_the_library_is_preloaded_a_worker_hints_by_default() {
    let mut app = App::start("hints", &[]);
    app.hear_first();
    let worker = app.worker();
    let pushed = Instant::now();
    push(&mut app.admin, "w", &[put(2, "b", 1), put(3, "c", 1)]);
    assert_eq!(next(&mut app.listener), (worker, Hint::Of("w".to_owned(), 2)));
    // Commits wake the worker. It would wake by itself ten seconds after the last time.
    assert!(pushed.elapsed() < Duration::from_secs(5), "{:?}", pushed.elapsed());
    // Nothing is told of what was rolled back.
    let mut transaction = app.admin.transaction().unwrap();
    push(&mut transaction, "lost", &[put(1, "a", 1)]);
    transaction.rollback().unwrap();
    app.admin.batch_execute("begin; select sync_put('v', 'notes', 'a', '{}'); commit").unwrap();
    assert_eq!(next(&mut app.listener), (worker, Hint::Of("v".to_owned(), 1)));
}

/// The session asks for what the worker does not do.
#[test]
fn what_the_worker_does_not_send_the_commit_does() {
    let mut app = App::start("hints-of-commits", &[]);
    app.hear_first();
    let me = pid(&mut app.admin);
    app.admin.batch_execute("set sync_ext.notify = changes").unwrap();
    push(&mut app.admin, "w", &[put(1, "a", 1)]);
    assert_eq!(next(&mut app.listener), (me, Hint::Of("w".to_owned(), 1)));
    let elsewhere = "listen elsewhere; unlisten sync_ext";
    app.listener.batch_execute(elsewhere).unwrap();
    app.admin
        .batch_execute("set sync_ext.notify = hint; set sync_ext.notify_channel = elsewhere")
        .unwrap();
    push(&mut app.admin, "w", &[put(2, "a", 2)]);
    assert_eq!(next(&mut app.listener), (me, Hint::Of("w".to_owned(), 2)));
    app.admin.batch_execute("set sync_ext.notify = off").unwrap();
    push(&mut app.admin, "w", &[put(3, "a", 3)]);
    app.admin.batch_execute("set sync_ext.notify = hint").unwrap();
    push(&mut app.admin, "w", &[put(4, "a", 4)]);
    assert_eq!(next(&mut app.listener), (me, Hint::Of("w".to_owned(), 4)));
}

#[test]
fn commits_of_an_interval_are_one_hint() {
    let mut app = App::start("hints-coalesced", &["sync_ext.notify_interval=300ms"]);
    app.hear_first();
    for n in 1..=50 {
        push(&mut app.admin, ["w", "v"][n % 2], &[put(n as u64, "a", n as u64)]);
    }
    let (mut hints, mut heads) = (0, [0, 0]);
    while heads != [25, 25] {
        let (_, Hint::Of(workspace, head)) = next(&mut app.listener) else { panic!("of one") };
        let head_before = &mut heads[usize::from(workspace == "v")];
        assert!(head > *head_before, "{workspace} {head}");
        *head_before = head;
        hints += 1;
    }
    assert!(hints < 50, "{hints}");
}

#[test]
fn more_workspaces_than_there_is_room_for_are_all() {
    let mut app = App::start("hints-full", &["sync_ext.notify_interval=1s"]);
    app.hear_first();
    let many =
        "select count(sync_put('w' || n, 'notes', 'a', '{}')) from generate_series(1, 2000) n";
    app.admin.batch_execute(many).unwrap();
    // The worker takes some of them before the others come.
    let mut head = 0;
    loop {
        match next(&mut app.listener).1 {
            Hint::All => {
                head += 1;
                push(&mut app.admin, "later", &[put(head, "a", head)]);
            }
            Hint::Of(workspace, _) if workspace == "later" => break,
            Hint::Of(..) => {}
        }
    }
}

#[test]
fn a_worker_that_was_ended_is_replaced() {
    let mut app = App::start("hints-ended", &[]);
    app.hear_first();
    let worker = app.worker();
    app.admin.execute("select pg_terminate_backend($1)", &[&worker]).unwrap();
    let (next_worker, hint) = next(&mut app.listener);
    assert_eq!(hint, Hint::All);
    assert_ne!(next_worker, worker);
    // So is the launcher.
    let launcher = "select pid from pg_stat_activity where backend_type = 'sync_ext launcher'";
    let launcher: i32 = app.admin.query_one(launcher, &[]).unwrap().get(0);
    app.admin.execute("select pg_terminate_backend($1)", &[&launcher]).unwrap();
    let other = format!(
        "select exists (select from pg_stat_activity where backend_type = 'sync_ext launcher'
           and pid <> {launcher})::text"
    );
    until(&mut app.admin, &other, "true");
    app.admin.execute("select pg_terminate_backend($1)", &[&next_worker]).unwrap();
    assert_eq!(next(&mut app.listener).1, Hint::All);
}

/// Also while the launcher waits for another to begin.
#[test]
fn a_commit_that_finds_no_worker_calls_for_one() {
    let mut app = App::start("hints-wanted", &["autovacuum=off"]);
    let mut pusher = app.cluster.connect("app").unwrap();
    app.admin.batch_execute("alter database app set sync_ext.notify = off").unwrap();
    until(&mut app.admin, HAS_WORKER, "false");
    let mut head = 0;
    let mut commit = || {
        head += 1;
        push(&mut pusher, "w", &[put(head, "a", head)]);
    };
    // Nobody can connect: the next worker neither begins nor ends.
    let mut transaction = app.admin.transaction().unwrap();
    transaction.batch_execute("lock table pg_db_role_setting").unwrap();
    transaction.batch_execute("alter database app reset all").unwrap();
    commit();
    let waits = "select exists (select from pg_locks where not granted)::text";
    until(&mut app.listener, waits, "true");
    commit();
    let end = "select coalesce(bool_or(pg_cancel_backend(pid)), false)::text from pg_locks
      where not granted";
    until(&mut app.listener, end, "false");
    transaction.commit().unwrap();
    let called = Instant::now();
    while call(&mut app.admin, HAS_WORKER, &[]).unwrap() != "true" {
        commit();
        assert!(called.elapsed() < Duration::from_secs(30), "no worker");
        thread::yield_now();
    }
}

/// Of the database, and of the server.
#[test]
fn the_worker_follows_the_settings() {
    let mut app = App::start("hints-settings", &[]);
    app.hear_first();
    app.listener.batch_execute("listen elsewhere").unwrap();
    app.admin.batch_execute("alter database app set sync_ext.notify_channel = elsewhere").unwrap();
    assert_eq!(next(&mut app.listener).1, Hint::All);
    app.admin.batch_execute("alter database app set sync_ext.notify = off").unwrap();
    until(&mut app.admin, HAS_WORKER, "false");
    app.admin.batch_execute("alter database app reset all").unwrap();
    push(&mut app.cluster.connect("app").unwrap(), "w", &[put(1, "a", 1)]);
    until(&mut app.admin, HAS_WORKER, "true");
    app.admin.batch_execute("alter system set sync_ext.notify = off").unwrap();
    app.admin.batch_execute("select pg_reload_conf()").unwrap();
    until(&mut app.admin, HAS_WORKER, "false");
}

#[test]
fn a_database_without_the_extension_has_no_worker() {
    let mut app = App::start("hints-dropped", &[]);
    app.admin.batch_execute("drop extension sync_ext").unwrap();
    until(&mut app.admin, HAS_WORKER, "false");
}

/// Postgres refuses each while anybody is connected.
#[test]
fn a_worker_does_not_keep_a_database_from_being_changed() {
    let App { cluster, admin, listener } = App::start("hints-aside", &[]);
    let mut postgres = cluster.connect("postgres").unwrap();
    drop((admin, listener));
    let other_sessions = "select count(*)::text from pg_stat_activity
      where datname = 'app' and backend_type = 'client backend'";
    until(&mut postgres, other_sessions, "0");
    for sql in [
        "create database copy template app",
        "alter database app rename to renamed",
        "alter database renamed set tablespace pg_default",
    ] {
        postgres.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    // It comes back, also to the copy.
    for database in ["renamed", "copy"] {
        let mut session = cluster.connect(database).unwrap();
        hears_of_a_worker(&mut session);
    }
    until(&mut postgres, &other_sessions.replace("'app'", "'copy'"), "0");
    postgres.batch_execute("drop database copy").unwrap();
    let gone = "select count(*)::text from pg_stat_activity where datname = 'copy'";
    until(&mut postgres, gone, "0");
}

#[test]
fn a_standby_has_no_worker_until_it_is_promoted() {
    let App { mut cluster, mut admin, .. } = App::start("hints-primary", &[]);
    let standby = cluster.standby("hints-standby").unwrap();
    let mut there = standby.connect("app").unwrap();
    let launchers =
        "select count(*)::text from pg_stat_activity where backend_type like 'sync_ext%'";
    until(&mut there, launchers, "0");
    push(&mut admin, "w", &[put(1, "a", 1)]);
    cluster.stop_server(Stop::Cleanly).unwrap();
    there.batch_execute("select pg_promote()").unwrap();
    hears_of_a_worker(&mut there);
}

/// Of this commit, or that all may have changed if the worker began later.
fn hears_of_a_worker(session: &mut Client) {
    session.batch_execute("listen sync_ext").unwrap();
    push(session, "w", &[put(8, "a", 8)]);
    until(session, HAS_WORKER, "true");
    let worker: i32 = session.query_one(WORKER, &[]).unwrap().get(0);
    push(session, "w", &[put(9, "a", 9)]);
    while next(session).0 != worker {}
}
