//! What a session calls, on the server and on the model.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sync_ext_model::own_tables::Written;
use sync_ext_model::refusal::unexpected;
use sync_ext_model::reply::{read, timeless};

use super::statement::Statement;
use super::world::{World, quoted};
use crate::common::rows::check_reply;

/// What a session calls.
#[derive(Clone, Debug)]
pub enum Call {
    Statement(Statement),
    Push {
        workspace: String,
        ops: String,
    },
    Write {
        workspace: String,
        word: &'static str,
        table: &'static str,
        pk: String,
        payload: Option<String>,
    },
}

impl World {
    /// In a transaction of its own.
    pub fn call_alone(&mut self, call: &Call) -> Result<()> {
        self.typed.begin();
        if self.call(call)? {
            return self.commit();
        }
        self.typed.changed.clear();
        Ok(())
    }

    /// False if it failed, as the model says.
    pub fn call(&mut self, call: &Call) -> Result<bool> {
        match call {
            Call::Statement(statement) => return self.statement(statement),
            Call::Push { workspace, ops } => self.push(workspace, ops)?,
            Call::Write { workspace, word, table, pk, payload } => {
                let written =
                    Written { word, table, pk, payload: payload.as_deref(), hlc: "0", op_id: "" };
                self.write(workspace, written)?;
            }
        }
        Ok(true)
    }

    fn push(&mut self, workspace: &str, ops: &str) -> Result<()> {
        let (mut model, mut typed) = (self.model.clone(), self.typed.clone());
        model.push_rows(&mut typed, workspace, ops, 0).map_err(unexpected)?;
        if typed.is_ambiguous {
            self.tally.add("pushes left out: Postgres chooses the order of updates", 1);
            return Ok(());
        }
        let sql = format!("select sync_push({}, {})", quoted(workspace), quoted(ops));
        let reply = self.must(&sql)?.context("no reply")?;
        self.learn()?;
        let before = self.entries();
        let expected = self.model.push_rows(&mut self.typed, workspace, ops, 0);
        let expected = expected.map_err(unexpected)?;
        self.tally.add("pushes", 1);
        self.count(&expected, self.entries() - before);
        check_reply("a push", &timeless(read(&reply)?), &timeless(expected))
    }

    fn write(&mut self, workspace: &str, written: Written<'_>) -> Result<()> {
        let Written { word, table, pk, payload, .. } = written;
        let arguments = [Some(workspace), Some(table), Some(pk), payload];
        let arguments: Vec<String> = arguments.into_iter().flatten().map(quoted).collect();
        let sql = format!("select sync_{word}({})", arguments.join(", "));
        let reply = timeless(read(&self.must(&sql)?.context("no reply")?)?);
        self.learn()?;
        let version = reply["serverVersion"].as_i64().unwrap_or_default();
        let stamp = self.typed.stamps.get(&(workspace.to_owned(), version)).cloned();
        let hlc = stamp.map_or_else(|| written.hlc.to_owned(), |(hlc, _)| hlc);
        let op_id = reply["opId"].as_str().unwrap_or_default();
        let written = Written { hlc: &hlc, op_id, ..written };
        let expected = self.model.write(&mut self.typed, workspace, written, 0);
        self.tally.add("calls of sync_put, sync_patch and sync_delete", 1);
        check_reply("a write", &reply, &timeless(expected.map_err(unexpected)?))
    }

    fn statement(&mut self, statement: &Statement) -> Result<bool> {
        let answer = self.ask(&statement.sql())?;
        let expected = statement.run(&mut self.typed);
        self.tally.add("statements", 1);
        if expected.is_err() {
            self.tally.add("statements that failed", 1);
        }
        match (&answer, expected) {
            (Ok((_, count)), Ok(expected)) if *count == expected => Ok(true),
            (Err((code, constraint)), Err(fault))
                if code == fault.sql_state && constraint.as_deref() == fault.constraint =>
            {
                Ok(false)
            }
            (answer, expected) => bail!("a statement gave {answer:?} where {expected:?} is right"),
        }
    }

    fn count(&mut self, reply: &Value, stored: u64) {
        let mut own = 0;
        for item in reply["results"].as_array().into_iter().flatten() {
            self.tally.add("ops pushed", 1);
            let is = |key: &str| item[key] == Value::Bool(true);
            own += u64::from(is("success") && !is("replayed"));
            let code = item["errorCode"].as_str().unwrap_or_default();
            let state = item["sqlState"].as_str().unwrap_or_default();
            self.tally.add(verdict(is("replayed"), is("applied"), code, state), 1);
            if item.get("payload").is_some() {
                self.tally.add("ops whose row differs from their payload", 1);
            }
        }
        self.tally.add("ops captured by pushes", stored.saturating_sub(own));
    }
}

fn verdict(is_replay: bool, is_applied: bool, code: &str, state: &str) -> &'static str {
    match (code, state) {
        ("", _) if is_replay => "ops replayed",
        ("", _) if is_applied => "ops applied",
        ("", _) => "ops lost",
        (_, "23502") => "ops refused: NOT NULL",
        (_, "23503") => "ops refused: foreign key",
        (_, "23505") => "ops refused: UNIQUE",
        (_, "23514") => "ops refused: CHECK",
        (_, "22001") => "ops refused: too long",
        (_, "22P02" | "22003") => "ops refused: type",
        ("VALIDATION_ERROR", _) => "ops refused: VALIDATION_ERROR without an SQLSTATE",
        ("UNAUTHORIZED", _) => "ops refused: row of another workspace",
        ("REJECTED", _) => "ops refused: by a trigger",
        ("READ_ONLY", _) => "ops refused: READ_ONLY",
        ("CONFLICT", _) => "ops refused: CONFLICT",
        ("BASE_MISSING", _) => "ops refused: BASE_MISSING",
        ("RECORD_CONFLICT", _) => "ops refused: RECORD_CONFLICT",
        ("FIELD_CONFLICT", _) => "ops refused: FIELD_CONFLICT",
        _ => "ops refused: otherwise",
    }
}
