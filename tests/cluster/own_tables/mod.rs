//! Attached tables: what pushes do to typed rows, beside the app's own SQL, and how that is
//! captured.

mod apply;
mod capture;
mod constraints;
mod meeting;
mod refusals;
mod replays;
mod row_security;
mod triggers;
mod types;
mod workspaces;

use std::sync::atomic::{AtomicU64, Ordering};

use postgres::Client;
use serde_json::Value;
use sync_ext_harness::attached::require_equal;
use sync_ext_harness::batch::op_id;
use sync_ext_harness::steps::{Stage, outcome};

use crate::patching::results;

const TASKS: &str =
    "create table tasks (id text primary key, workspace_id text not null, title text not null,
                                         done boolean not null default false, n integer);
                     select sync_attach_table('tasks', patches => true);";

/// A database with attached tables.
struct Own {
    stage: Stage,
}

impl Own {
    /// With what `sql` creates.
    fn new(sql: &str) -> Own {
        let mut stage = Stage::new();
        stage.admin.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        Own { stage }
    }

    fn sql(&mut self, sql: &str) {
        self.stage.admin.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The values of the first column, as text.
    fn rows(&mut self, sql: &str) -> Vec<String> {
        let sql = format!("select of_all::text from ({sql}) as of_all");
        self.stage.admin.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// Pushes to the workspace w; the results.
    fn push(&mut self, ops: &[String]) -> Vec<Value> {
        results(&mut self.stage.admin, "w", ops)
    }

    /// What became of the ops, as [`codes`] has it.
    fn codes(&mut self, ops: &[String]) -> Vec<String> {
        codes(&self.push(ops))
    }

    /// The SQLSTATE with which a push fails.
    fn failure(&mut self, ops: &[String]) -> String {
        outcome(&mut self.stage.admin, &push_sql("w", ops)).expect_err("the push fails")
    }

    fn head(&mut self) -> i64 {
        let sql = "select coalesce(max(head), 0) from sync_ext.workspace where workspace_id = 'w'";
        self.stage.admin.query_one(sql, &[]).unwrap().get(0)
    }

    /// The payload of a record in w.
    fn payload(&mut self, pk: &str) -> Option<Value> {
        let sql = "select payload::text from sync_ext.current_record
                    where workspace_id = 'w' and pk = $1 and not deleted";
        let row = self.stage.admin.query_opt(sql, &[&pk]).unwrap();
        row.map(|row| serde_json::from_str(&row.get::<_, String>(0)).unwrap())
    }
}

/// Every scenario ends with this comparison.
impl Drop for Own {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            require_equal(&mut self.stage.session());
        }
    }
}

/// Ops on this table. Each next one has a higher opId, and so wins among equal clocks.
fn put(table: &str, pk: &str, clock: u64, payload: &str) -> String {
    op(table, "put", pk, clock, payload)
}

fn delete(table: &str, pk: &str, clock: u64) -> String {
    op(table, "delete", pk, clock, "null")
}

/// A patch of the record that the op `base` put.
fn patch(table: &str, pk: &str, clock: u64, base: &str, payload: &str) -> String {
    let base: Value = serde_json::from_str(base).unwrap();
    let (id, clock_of_base) = (&base["stamp"]["opId"], &base["stamp"]["clock"]);
    let base = format!(r#""base":{{"clock":{clock_of_base},"hlc":"h","opId":{id}}}"#);
    op(table, "patch", pk, clock, payload).replacen('{', &format!("{{{base},"), 1)
}

fn op(table: &str, operation: &str, pk: &str, clock: u64, payload: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = op_id(NEXT.fetch_add(1, Ordering::Relaxed));
    let pk = Value::from(pk);
    format!(
        r#"{{"tableName":"{table}","operation":"{operation}","pk":{pk},"payload":{payload},"stamp":{{"deviceId":"d","opId":"{id}","hlc":"h","clock":{clock}}}}}"#
    )
}

/// "ok", "lost", "replay", or the errorCode with the SQLSTATE if there is one.
fn codes(results: &[Value]) -> Vec<String> {
    let code = |result: &Value| {
        if result["success"] == false {
            let state = result["sqlState"].as_str().map(|state| format!(" {state}"));
            return format!(
                "{}{}",
                result["errorCode"].as_str().unwrap(),
                state.unwrap_or_default()
            );
        }
        match (result["replayed"] == true, result["applied"] == true) {
            (true, _) => "replay".to_owned(),
            (_, true) => "ok".to_owned(),
            _ => "lost".to_owned(),
        }
    };
    results.iter().map(code).collect()
}

fn push_sql(workspace: &str, ops: &[String]) -> String {
    let ops = ops.join(",").replace('\'', "''");
    format!("select sync_push('{workspace}', '[{ops}]'::json)")
}

/// The results of a push by this session.
fn push_as(session: &mut Client, workspace: &str, ops: &[String]) -> Vec<String> {
    codes(&results(session, workspace, ops))
}
