//! Several sessions, step by step: a step is taken when the server shows that the one
//! before is done or waits, never after a delay.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::{Client, GenericClient, SimpleQueryMessage};
use serde_json::Value;

use crate::batch::{push, put, versions};
use crate::database::Database;
use crate::device::call;

/// A database for the sessions of one test, with table `notes` registered.
pub struct Stage {
    pub database: Database,
    /// The session that observes, and takes the steps that do not wait.
    pub admin: Client,
}

impl Stage {
    /// In the shared cluster.
    #[expect(clippy::new_without_default, reason = "it starts a server")]
    pub fn new() -> Stage {
        let mut stage = Stage::on(Database::new());
        stage.admin.execute("select sync_register_table('notes')", &[]).unwrap();
        stage
    }

    /// The same in an existing database.
    pub fn on(database: Database) -> Stage {
        let mut admin = database.session();
        // If one of its steps waited, nothing else would end it.
        admin.batch_execute("set lock_timeout = '30s'").unwrap();
        Stage { database, admin }
    }

    pub fn session(&self) -> Client {
        self.database.session()
    }

    /// A session of a user.
    pub fn session_of(&self, user: &str) -> Client {
        let mut session = self.session();
        speak_for(&mut session, user);
        session
    }

    /// A session that has taken this step for a user, without committing it.
    pub fn holding(&self, user: &str, step: &str) -> Client {
        let mut session = self.session_of(user);
        session.batch_execute(&format!("begin; {step}")).unwrap();
        session
    }

    /// Takes a step in a session of its own; returns when that session waits for the
    /// backend `holder`.
    pub fn blocked<T: Send + 'static>(
        &mut self,
        holder: i32,
        step: impl FnOnce(&mut Client) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let session = self.session();
        self.blocked_in(session, holder, step)
    }

    /// The same in this session.
    pub fn blocked_in<T: Send + 'static>(
        &mut self,
        mut session: Client,
        holder: i32,
        step: impl FnOnce(&mut Client) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let waiting = pid(&mut session);
        let handle = thread::spawn(move || step(&mut session));
        let deadline = Instant::now() + Duration::from_secs(30);
        let sql = "select $1 = any(pg_blocking_pids($2))";
        while !self.admin.query_one(sql, &[&holder, &waiting]).unwrap().get::<_, bool>(0) {
            assert!(!handle.is_finished(), "the step did not wait");
            assert!(Instant::now() < deadline, "never blocked");
            thread::yield_now();
        }
        handle
    }

    /// Takes a step for a user while `holder` holds what it needs, and returns when it
    /// waits for that. Its result is that of [`outcome`].
    pub fn waiting(
        &mut self,
        holder: &mut Client,
        user: &'static str,
        sql: &str,
    ) -> JoinHandle<Result<String, String>> {
        let sql = sql.to_owned();
        self.blocked(pid(holder), move |session| {
            speak_for(session, user);
            outcome(session, &sql)
        })
    }
}

/// The backend's process id of a session.
pub fn pid(client: &mut impl GenericClient) -> i32 {
    client.query_one("select pg_backend_pid()", &[]).unwrap().get(0)
}

/// Sets the user of a session; an empty name sets none.
pub fn speak_for(client: &mut impl GenericClient, user: &str) {
    client.execute("select set_config('sync_ext.user_id', $1, false)", &[&user]).unwrap();
}

/// The value of a statement, or the SQLSTATE of its error.
pub fn outcome(client: &mut impl GenericClient, sql: &str) -> Result<String, String> {
    match client.simple_query(sql) {
        Ok(messages) => Ok(messages
            .iter()
            .find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .unwrap_or_default()
            .to_owned()),
        Err(error) => Err(error.code().map_or_else(|| error.to_string(), |c| c.code().to_owned())),
    }
}

/// The outcome of a call that the user may not make.
pub fn refused() -> Result<String, String> {
    Err("42501".to_owned())
}

/// A page as JSON.
pub fn pull(
    client: &mut impl GenericClient,
    workspace: &str,
    cursor: i64,
    page_limit: i32,
    proof: Option<&str>,
) -> Value {
    let sql = "select sync_pull($1, $2, $3, proof => $4)::text";
    let reply = call(client, sql, &[&workspace, &cursor, &page_limit, &proof]).unwrap();
    serde_json::from_str(&reply).unwrap()
}

/// The versions in a first pull.
pub fn versions_seen(client: &mut impl GenericClient, workspace: &str) -> Vec<i64> {
    versions(&pull(client, workspace, 0, 1000, None).to_string(), "changes")
}

/// Runs GC on one workspace.
pub fn gc(client: &mut impl GenericClient, workspace: &str) -> Value {
    let reply = call(client, "select sync_gc($1)::text", &[&workspace]).unwrap();
    serde_json::from_str(&reply).unwrap()
}

pub fn acknowledge(
    client: &mut impl GenericClient,
    workspace: &str,
    device: &str,
    version: i64,
) -> Value {
    let sql = "select sync_update_cursor($1, $2, $3)::text";
    let reply = call(client, sql, &[&workspace, &device, &version]).unwrap();
    serde_json::from_str(&reply).unwrap()
}

/// Makes young entries older than any retention. This invalidates proofs of these
/// entries: age entries before taking proofs, best in the transaction that pushes them.
pub fn age(client: &mut impl GenericClient) {
    let sql = "update sync_ext.change_log set created_at = created_at - interval '40 days'
                where created_at > now() - interval '39 days'";
    client.execute(sql, &[]).unwrap();
}

/// The same for one entry.
pub fn age_entry(client: &mut impl GenericClient, version: i64) {
    let sql = "update sync_ext.change_log set created_at = created_at - interval '40 days'
                where server_version = $1";
    assert_eq!(client.execute(sql, &[&version]).unwrap(), 1, "one entry {version}");
}

/// As [`age`], with the marks by which GC of all workspaces finds what is due.
pub fn age_all(client: &mut impl GenericClient) {
    age(client);
    let sql = "update sync_ext.workspace set unread_since = unread_since - interval '40 days'
                where unread_since > now() - interval '39 days'";
    client.execute(sql, &[]).unwrap();
}

/// A dropped workspace that is not erased yet, and the workspace `team` with two
/// members and a private record of the first, whose owner was filled in.
pub fn share(client: &mut Client) {
    push(client, "gone", &[put(1, "a", 1), put(2, "b", 1)]);
    client
        .batch_execute(
            "select sync_drop_workspace('gone', 1);
             select sync_register_table('diary', owner_field => 'by');
             select sync_create_workspace('team', 'ann'), sync_set_member('team', 'bob', 'viewer');
             set sync_ext.user_id = 'ann'",
        )
        .unwrap();
    push(client, "team", &[put(1, "a", 1).replace("notes", "diary")]);
    client.batch_execute("reset sync_ext.user_id").unwrap();
}

/// Has GC look at a workspace, as the acknowledgement of a device that held it back does.
pub fn unpin(client: &mut Client, workspace: &str) {
    let sql = "insert into sync_ext.unpinned_workspace (workspace_key)
               select workspace_key from sync_ext.workspace where workspace_id = $1";
    assert_eq!(client.execute(sql, &[&workspace]).unwrap(), 1);
}
