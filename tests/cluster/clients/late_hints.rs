//! Hints of commits that take their time, and of those that a worker has not told when it
//! leaves.

use std::thread::{self, JoinHandle};

use postgres::Client;
use sync_ext_harness::batch::{push, put};
use sync_ext_harness::replica::until;

use super::hints::{App, HAS_WORKER, Hint, next, pid};

/// A commit with `synchronous_commit = on` waits for a standby that there is not, after all
/// that is done before a commit, and before anybody sees it.
const STANDBY: [&str; 2] = ["synchronous_standby_names=nobody", "synchronous_commit=local"];

fn start(name: &str) -> App {
    let mut app = App::start(name, &STANDBY);
    // Only the checkpointer tells others that there are standbys to wait for.
    app.admin.batch_execute("checkpoint").unwrap();
    app.hear_first();
    app
}

/// A push whose commit waits.
struct Held {
    pid: i32,
    pusher: JoinHandle<()>,
}

impl Held {
    fn push(app: &mut App, workspace: &'static str, settings: &str) -> Held {
        let mut session = app.cluster.connect("app").unwrap();
        session.batch_execute(settings).unwrap();
        session.batch_execute("set synchronous_commit = on").unwrap();
        let pid = pid(&mut session);
        let pusher = thread::spawn(move || {
            push(&mut session, workspace, &[put(1, "a", 1)]);
        });
        let waits =
            format!("select coalesce(wait_event, '') from pg_stat_activity where pid = {pid}");
        until(&mut app.admin, &waits, "SyncRep");
        Held { pid, pusher }
    }

    /// Returns when it is acknowledged.
    fn let_go(self, admin: &mut Client) {
        admin.execute("select pg_cancel_backend($1)", &[&self.pid]).unwrap();
        self.pusher.join().unwrap();
    }
}

fn of(workspace: &str) -> Hint {
    Hint::Of(workspace.to_owned(), 1)
}

fn set(admin: &mut Client, setting: &str) {
    admin.batch_execute(&format!("alter system {setting}")).unwrap();
    admin.batch_execute("select pg_reload_conf()").unwrap();
}

#[test]
fn a_hint_follows_its_commit() {
    let mut app = start("hints-follow");
    let held = Held::push(&mut app, "held", "");
    push(&mut app.admin, "fence", &[put(1, "a", 1)]);
    assert_eq!(next(&mut app.listener).1, of("fence"));
    held.let_go(&mut app.admin);
    assert_eq!(next(&mut app.listener).1, of("held"));
}

/// The commit counts on the worker that was there. Its session asks for hints, also while
/// they are off for others.
#[test]
fn a_commit_whose_worker_has_left_is_hinted_at() {
    for is_on_again in [false, true] {
        let mut app = start(&format!("hints-left-{is_on_again}"));
        let held = Held::push(&mut app, "held", "set sync_ext.notify = hint");
        set(&mut app.admin, "set sync_ext.notify = off");
        until(&mut app.admin, HAS_WORKER, "false");
        if is_on_again {
            set(&mut app.admin, "reset sync_ext.notify");
        }
        held.let_go(&mut app.admin);
        let told = next(&mut app.listener).1;
        assert!([Hint::All, of("held")].contains(&told), "{told:?}");
    }
}

#[test]
fn a_worker_that_leaves_tells_what_it_has_not() {
    for (reason, setting) in [("off", "notify = off"), ("channel", "notify_channel = elsewhere")] {
        let mut app = App::start(&format!("hints-rest-{reason}"), &["sync_ext.notify_interval=1s"]);
        app.hear_first();
        let worker = app.worker();
        // After this the worker waits for a second.
        push(&mut app.admin, "told", &[put(1, "a", 1)]);
        assert_eq!(next(&mut app.listener), (worker, of("told")));
        push(&mut app.admin, "rest", &[put(1, "a", 1)]);
        set(&mut app.admin, &format!("set sync_ext.{setting}"));
        assert_eq!(next(&mut app.listener), (worker, of("rest")));
    }
}
