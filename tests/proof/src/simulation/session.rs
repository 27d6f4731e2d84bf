//! A connection with a thread of its own, so that a call may wait for a lock
//! while the simulation goes on.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, SimpleQueryMessage};
use sync_ext_harness::cluster::Cluster;

/// Far longer than any call takes: past it, a call hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first columns of all rows, or the error's SQLSTATE and text; no SQLSTATE
/// when the connection broke.
pub type Answer = std::result::Result<Vec<String>, (Option<String>, String)>;

pub struct Session {
    pub pid: i32,
    statements: Sender<String>,
    answers: Receiver<Answer>,
}

impl Session {
    pub fn connect(cluster: &Cluster, database: &str) -> Result<Session> {
        let mut client = cluster.connect(database)?;
        let bytes = super::world::PAGE_BYTES;
        client.batch_execute(&format!("set sync_ext.max_page_bytes = '{bytes}B'"))?;
        let pid = client.query_one("select pg_backend_pid()", &[])?.get(0);
        let (statements, to_run) = channel::<String>();
        let (ran, answers) = channel();
        thread::spawn(move || {
            for sql in to_run {
                if ran.send(run(&mut client, &sql)).is_err() {
                    return;
                }
            }
        });
        Ok(Session { pid, statements, answers })
    }

    /// Sends SQL without waiting for its answer.
    pub fn send(&self, sql: String) -> Result<()> {
        self.statements.send(sql).context("the session's thread is gone")
    }

    /// The answer of a call that waits for nobody. (Vacuum may hold it up for a
    /// moment, but gives way.)
    pub fn answer(&self, admin: &mut Client) -> Result<Answer> {
        let deadline = Instant::now() + PATIENCE;
        let mut blocked = 0;
        loop {
            match self.answers.recv_timeout(Duration::from_millis(500)) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the session's thread is gone"),
            }
            let by: Vec<i32> = admin.query_one("select pg_blocking_pids($1)", &[&self.pid])?.get(0);
            blocked = if by.is_empty() { 0 } else { blocked + 1 };
            ensure!(blocked < 6, "a call waits for a lock that nobody should hold");
            ensure!(Instant::now() < deadline, "a call hangs");
        }
    }

    /// What was sent must wait for a lock: returns when it does.
    pub fn until_blocked(&self, admin: &mut Client) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let sql = "select cardinality(pg_blocking_pids($1)) > 0";
        while !admin.query_one(sql, &[&self.pid])?.get::<_, bool>(0) {
            if let Ok(answer) = self.answers.try_recv() {
                bail!("a call did not wait for the lock that another holds: {answer:?}");
            }
            ensure!(Instant::now() < deadline, "a call neither waits nor answers");
            thread::yield_now();
        }
        Ok(())
    }

    /// Ends the backend, and waits until it is gone with all its locks.
    pub fn terminate(&self, admin: &mut Client) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        admin.execute("select pg_terminate_backend($1)", &[&self.pid])?;
        let sql = "select count(*) from pg_stat_activity where pid = $1";
        while admin.query_one(sql, &[&self.pid])?.get::<_, i64>(0) > 0 {
            ensure!(Instant::now() < deadline, "a backend does not end");
            thread::yield_now();
        }
        Ok(())
    }
}

fn run(client: &mut Client, sql: &str) -> Answer {
    match client.simple_query(sql) {
        Ok(messages) => Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
                _ => None,
            })
            .collect()),
        Err(error) => {
            let code = error.as_db_error().map(|error| error.code().code().to_owned());
            let text = error.as_db_error().map_or(error.to_string(), |error| error.to_string());
            Err((code, text))
        }
    }
}

/// A text as an SQL literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub fn quote_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), quote)
}

/// A list of scopes as an SQL array.
pub fn quote_list<'a>(names: Option<impl IntoIterator<Item = &'a String>>) -> String {
    let Some(names) = names else { return "null".to_owned() };
    let names: Vec<String> = names.into_iter().map(|name| quote(name)).collect();
    format!("array[{}]::text[]", names.join(","))
}

/// Names as an SQL array; none as NULL.
pub fn quote_all(names: &[String]) -> String {
    if names.is_empty() {
        return "null".to_owned();
    }
    let names: Vec<String> = names.iter().map(|name| quote(name)).collect();
    format!("array[{}]", names.join(","))
}
