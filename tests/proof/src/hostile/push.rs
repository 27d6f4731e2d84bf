//! Pushes of hostile batches.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use postgres::{Client, Statement};
use serde_json::Value;
use serde_json::value::RawValue;
use sync_ext_model::op::read;
use sync_ext_model::reply::{self, timeless};
use sync_ext_model::{Outcome, Server, Settings};

use super::allowed;
use super::calls::refused;
use super::generate::{Batch, TABLES, scope_field};
use super::{MAX_DEPTH, MAX_OPS, MAX_PAYLOAD};
use crate::common::rows::{self, check_reply};
use crate::common::tally::Tally;

/// From this nesting on Postgres' own parser may give up with 54001, depending
/// on its stack.
const DEEP: usize = 1000;

/// One connection, and what it must find.
pub struct Pusher {
    pub client: Client,
    as_bytes: Statement,
    as_text: Statement,
    others: BTreeMap<String, Statement>,
    /// As a number: 150000 and more.
    pub server_version: i32,
    pub model: Server,
    /// The calls so far, which are the model's time.
    pub at: i64,
    /// The versions up to which logs were compared.
    compared: BTreeMap<String, i64>,
}

impl Pusher {
    pub fn new(mut client: Client) -> Result<Pusher> {
        let settings = Settings {
            max_ops_per_push: MAX_OPS,
            max_payload_bytes: MAX_PAYLOAD,
            max_payload_depth: MAX_DEPTH,
            ..Settings::default()
        };
        let mut model = Server { settings, ..Server::default() };
        for (table, pk_field) in TABLES {
            let fields = (pk_field, None, scope_field(table));
            ensure!(model.register_scoped(None, table, fields, true).is_ok(), "{table:?}");
        }
        Ok(Pusher {
            as_bytes: client
                .prepare("select sync_push($1, convert_from($2, 'UTF8')::json)::text")?,
            as_text: client.prepare("select sync_push($1, $2::text::json)::text")?,
            others: BTreeMap::new(),
            server_version: client
                .query_one("select current_setting('server_version_num')::int", &[])?
                .get(0),
            client,
            model,
            at: 0,
            compared: BTreeMap::new(),
        })
    }

    /// Pushes a text and checks all that the reply shows.
    pub fn push(
        &mut self,
        workspace: Option<&str>,
        text: &[u8],
        as_text: bool,
        tally: &mut Tally,
    ) -> Result<()> {
        let answer = match std::str::from_utf8(text) {
            Ok(text) if as_text => self.client.query_one(&self.as_text, &[&workspace, &text]),
            _ => self.client.query_one(&self.as_bytes, &[&workspace, &text]),
        };
        tally.add("batches", 1);
        let code = match &answer {
            Ok(_) => None,
            Err(error) => Some(allowed::code(error)?),
        };
        if let Some(code) = &code {
            tally.add(allowed::counted_as(code), 1);
            if code == "54001" && may_be_too_deep(text) {
                return Ok(());
            }
        }
        let expected = self.expected(workspace, text);
        let due = expected.as_ref().err().map(|refusal| refusal.code);
        ensure!(code.as_deref() == due, "ended by {code:?}, by the contract {due:?}");
        match (answer, expected) {
            (Ok(row), Ok(expected)) => check_push(row.try_get(0)?, &expected, tally),
            _ => Ok(()),
        }
    }

    fn expected(&mut self, workspace: Option<&str>, text: &[u8]) -> Outcome {
        let has_nul = text.contains(&0) || workspace.is_some_and(|id| id.contains('\0'));
        let Some(text) = std::str::from_utf8(text).ok().filter(|_| !has_nul) else {
            return Err(refused("22021"));
        };
        if serde_json::from_str::<&RawValue>(text).is_err() {
            return Err(refused("22P02"));
        }
        self.at += 1;
        self.model.push(None, workspace.unwrap_or_default(), text, self.at)
    }

    /// A generated batch: what nobody has touched must be good.
    pub fn push_batch(
        &mut self,
        workspace: Option<&str>,
        batch: &Batch,
        as_text: bool,
        tally: &mut Tally,
    ) -> Result<()> {
        if !batch.is_torn
            && let Ok(text) = std::str::from_utf8(&batch.text)
            && let Ok(elements) = read(text, MAX_OPS)
        {
            for place in &batch.untouched {
                ensure!(elements[*place].op.is_some(), "ops[{place}] was made to be good");
            }
            tally.add("good ops among them", batch.untouched.len() as u64);
        }
        self.push(workspace, &batch.text, as_text, tally)
    }

    /// Compares what came to the logs since the last time.
    pub fn compare_logs(&mut self) -> Result<()> {
        for (workspace, state) in &self.model.workspaces {
            let compared = self.compared.entry(workspace.clone()).or_default();
            rows::check_log(&mut self.client, &self.model, workspace, *compared)?;
            *compared = state.head;
        }
        let sql = "select count(*) from sync_ext.workspace";
        let stored: i64 = self.client.query_one(sql, &[])?.get(0);
        let expected = self.model.workspaces.len() as i64;
        ensure!(stored == expected, "{stored} workspaces are stored, not {expected}");
        Ok(())
    }

    pub fn compare_log(&mut self, workspace: &str) -> Result<()> {
        rows::check_log(&mut self.client, &self.model, workspace, 0)
    }

    /// Compares every row.
    pub fn compare(&mut self) -> Result<()> {
        rows::check(&mut self.client, &self.model, None)
    }

    /// Prepared once.
    pub fn statement(&mut self, sql: &str) -> Result<Statement> {
        if let Some(statement) = self.others.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.others.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn may_be_too_deep(text: &[u8]) -> bool {
    text.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > DEEP
}

/// What a push was answered, that of an exchange too.
pub fn check_push(reply: &str, expected: &Value, tally: &mut Tally) -> Result<()> {
    let reply = reply::read(reply)?;
    for result in reply["results"].as_array().into_iter().flatten() {
        tally.add("ops", 1);
        tally.add("patches that lost some fields", u64::from(result["lost"].is_array()));
        tally.add(fate(result), 1);
    }
    check_reply("a push", &timeless(reply), &timeless(expected.clone()))
}

fn fate(result: &Value) -> &'static str {
    match result["errorCode"].as_str() {
        Some("OVERSIZED") => "ops refused as OVERSIZED",
        Some("CONFLICT") => "ops refused as CONFLICT",
        Some("BASE_MISSING") => "ops refused as BASE_MISSING",
        Some("RECORD_CONFLICT") => "ops refused as RECORD_CONFLICT",
        Some("FIELD_CONFLICT") => "ops refused as FIELD_CONFLICT",
        Some(_) => "ops refused as VALIDATION_ERROR",
        None if result["replayed"] == true => "ops known already",
        None => "ops stored",
    }
}
