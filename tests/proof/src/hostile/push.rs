//! Pushes of hostile batches.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, Statement};

use super::allowed;
use super::expect::{Element, Whole, expect};
use super::generate::Batch;
use super::model::Model;
use crate::tally::Tally;

/// One connection that pushes, and what it must find stored.
pub struct Pusher {
    pub client: Client,
    as_bytes: Statement,
    as_text: Statement,
    others: BTreeMap<String, Statement>,
    /// As a number: 150000 and more.
    pub server_version: i32,
    pub models: BTreeMap<String, Model>,
}

impl Pusher {
    pub fn new(mut client: Client) -> Result<Pusher> {
        Ok(Pusher {
            as_bytes: client
                .prepare("select sync_push($1, convert_from($2, 'UTF8')::json)::text")?,
            as_text: client.prepare("select sync_push($1, $2::text::json)::text")?,
            others: BTreeMap::new(),
            server_version: client
                .query_one("select current_setting('server_version_num')::int", &[])?
                .get(0),
            client,
            models: BTreeMap::new(),
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
        let (expected, may_be_too_deep) = expect(text);
        let workspace = workspace.filter(|id| (1..=256).contains(&id.len()));
        tally.add("batches", 1);
        let row = match answer {
            Ok(row) => row,
            Err(error) => {
                let code = allowed::code(&error)?;
                tally.add(allowed::counted_as(&code), 1);
                let expected = match expected {
                    _ if workspace.is_some_and(|id| id.contains('\0')) => Some("22021"),
                    Whole::Error(code @ ("22021" | "22P02")) => Some(code),
                    _ if workspace.is_none() => Some("22023"),
                    Whole::Error(code) => Some(code),
                    Whole::Elements(_) => None,
                };
                if expected != Some(&*code) && !(code == "54001" && may_be_too_deep) {
                    bail!("ended by {code}, by the contract {expected:?}");
                }
                return Ok(());
            }
        };
        let Whole::Elements(elements) = expected else { bail!("not refused") };
        let workspace = workspace.context("no such workspace may be")?;
        self.take_reply(workspace, &elements, row.try_get(0)?, tally)
    }

    /// What a push was answered, that of an exchange too.
    pub fn take_reply(
        &mut self,
        workspace: &str,
        elements: &[Element],
        reply: &str,
        tally: &mut Tally,
    ) -> Result<()> {
        let mut fresh = Model::default();
        let known = self.models.get_mut(workspace);
        let is_known = known.is_some();
        let model = known.unwrap_or(&mut fresh);
        let stored = model.take_reply(workspace, elements, reply, tally)?;
        if !is_known && stored > 0 {
            self.models.insert(workspace.to_owned(), fresh);
        }
        Ok(())
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
            && let (Whole::Elements(elements), _) = expect(&batch.text)
        {
            for place in &batch.untouched {
                ensure!(elements[*place].op.is_some(), "ops[{place}] was made to be good");
            }
            tally.add("good ops among them", batch.untouched.len() as u64);
        }
        self.push(workspace, &batch.text, as_text, tally)
    }

    /// Compares the server's tables with what was told.
    pub fn compare(&mut self) -> Result<()> {
        for (workspace, model) in &mut self.models {
            model
                .compare(&mut self.client, workspace)
                .with_context(|| format!("in workspace {workspace:?}"))?;
        }
        let workspaces: i64 =
            self.client.query_one("select count(*) from sync_ext.workspace", &[])?.get(0);
        ensure!(
            workspaces == self.models.len() as i64,
            "{workspaces} workspaces, {} were pushed to",
            self.models.len()
        );
        Ok(())
    }

    /// One workspace of many, by itself.
    pub fn compare_model(&mut self, workspace: &str) -> Result<()> {
        let mut model = self.models.remove(workspace).unwrap_or_default();
        model.compare(&mut self.client, workspace)
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

    /// The winners, as the logs give them.
    pub fn compare_records(&mut self) -> Result<()> {
        let different: i64 = self
            .client
            .query_one(
                "select count(*) from (
                   select distinct on (workspace_key, table_name, pk)
                          workspace_key, table_name, pk, server_version, clock, hlc, op_id,
                          operation = 'delete' as deleted
                     from sync_ext.change_log
                    order by workspace_key, table_name, pk, clock desc, hlc desc, op_id desc) l
                 full join sync_ext.record r using (workspace_key, table_name, pk)
                 where (r.server_version, r.clock, r.hlc, r.op_id, r.deleted)
                       is distinct from (l.server_version, l.clock, l.hlc, l.op_id, l.deleted)",
                &[],
            )?
            .get(0);
        ensure!(different == 0, "{different} records are not as the log says");
        Ok(())
    }
}
