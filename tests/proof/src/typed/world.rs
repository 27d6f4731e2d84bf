//! The simulation's world: a real server, and the model of its log and of its rows. What
//! one call does on both must be the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, SimpleQueryMessage};
use sync_ext_harness::cluster::Cluster;
use sync_ext_model::refusal::unexpected;
use sync_ext_model::{Server, rows::difference};

use super::calling::Call;
use super::chance::{Chance, WORKSPACES};
use super::device::Device;
use super::rows::Typed;
use super::schema::{self, JSON_TABLE, TABLE};
use super::step::{Action, DATABASE, Step};
use crate::common::rows::check;
use crate::common::tally::Tally;

pub struct World {
    pub client: Client,
    pub model: Server,
    pub typed: Typed,
    pub devices: Vec<Device>,
    /// The highest hlc of the server by workspace.
    last_hlc: BTreeMap<String, String>,
    pub tally: Tally,
    /// What was executed.
    pub executed: Vec<String>,
}

/// The first column of the last row, and the number of rows of the last command.
pub type Answer = std::result::Result<(Option<String>, u64), (String, Option<String>)>;

impl World {
    pub fn new(cluster: &Cluster) -> Result<World> {
        let mut client = cluster.connect(DATABASE)?;
        let tables = ["comments", "todos", "lists", "prices"].join("; delete from ");
        client.batch_execute(&format!(
            "set sync_ext.capture = off; delete from {tables}; set sync_ext.capture = on;
             truncate sync_ext.workspace, sync_ext.change_log, sync_ext.record,
                      sync_ext.device_cursor restart identity"
        ))?;
        let mut model = Server::default();
        for table in &TABLE {
            model.register(None, table.name, "id", None, table.patches).map_err(unexpected)?;
        }
        model.register(None, JSON_TABLE, "id", None, false).map_err(unexpected)?;
        let device = |number: usize| Device::new(number, WORKSPACES[number % WORKSPACES.len()]);
        Ok(World {
            client,
            model,
            typed: Typed::new(),
            devices: (0..4).map(device).collect(),
            last_hlc: BTreeMap::new(),
            tally: Tally::default(),
            executed: Vec::new(),
        })
    }

    pub fn play(&mut self, step: &Step) -> Result<()> {
        self.executed.push(format!("-- {step:?}"));
        let chance = &mut Chance::of(step.seed);
        match step.action {
            Action::Statement => self.call_alone(&Call::Statement(chance.statement())),
            Action::Write => {
                let call = self.some_write(chance);
                self.call_alone(&call)
            }
            Action::Push { device } => {
                let call = self.some_push(device, chance);
                self.call_alone(&call)
            }
            Action::Transaction => self.transaction(chance),
            Action::Drift => self.drift(chance),
            Action::Gc => self.gc(chance.workspace()),
            Action::Pull { device } => self.pull(device, chance),
        }?;
        self.check()
    }

    /// Runs SQL that must not fail.
    pub fn must(&mut self, sql: &str) -> Result<Option<String>> {
        match self.ask(sql)? {
            Ok((value, _)) => Ok(value),
            Err(error) => bail!("failed: {sql}: {error:?}"),
        }
    }

    pub fn ask(&mut self, sql: &str) -> Result<Answer> {
        self.executed.push(format!("{sql};"));
        let (mut value, mut count) = (None, 0);
        match self.client.simple_query(sql) {
            Ok(messages) => {
                for message in messages {
                    match message {
                        SimpleQueryMessage::Row(row) => value = row.get(0).map(str::to_owned),
                        SimpleQueryMessage::CommandComplete(rows) => count = rows,
                        _ => {}
                    }
                }
                Ok(Ok((value, count)))
            }
            Err(error) => {
                let error = error.as_db_error().context("the connection broke")?;
                let constraint = error.constraint().map(str::to_owned);
                Ok(Err((error.code().code().to_owned(), constraint)))
            }
        }
    }

    /// What a commit captures.
    pub fn commit(&mut self) -> Result<()> {
        self.learn()?;
        let changed = self.typed.changed.iter().map(|(workspace, _)| workspace.clone()).collect();
        let before = self.entries();
        self.model.capture_all(&mut self.typed, changed, 0);
        self.tally.add("ops captured by commits", self.entries() - before);
        Ok(())
    }

    pub fn entries(&self) -> u64 {
        self.model.workspaces.values().map(|state| state.head as u64).sum()
    }

    /// Takes over what no model can know: the stamps of server ops. Their form is the
    /// contract's, and they rise.
    pub fn learn(&mut self) -> Result<()> {
        let heads = self.model.workspaces.iter();
        let heads: Vec<String> = heads
            .map(|(name, state)| format!("when {} then {}", quoted(name), state.head))
            .chain(["when '' then 0".to_owned()])
            .collect();
        let sql = format!(
            "select w.workspace_id, l.server_version, l.hlc, l.op_id::text
               from sync_ext.change_log l join sync_ext.workspace w using (workspace_key)
              where l.device_id = '$server'
                and l.server_version > case w.workspace_id {} else 0 end
              order by 1, 2",
            heads.join(" ")
        );
        for row in self.client.query(&sql, &[])? {
            let (workspace, hlc): (String, String) = (row.get(0), row.get(2));
            let (at, stamp) = ((workspace.clone(), row.get(1)), (hlc.clone(), row.get(3)));
            if self.typed.stamps.get(&at) == Some(&stamp) {
                continue;
            }
            self.typed.stamps.insert(at, stamp);
            let is_digits = |part: Option<&str>, count: usize| {
                part.is_some_and(|it| it.len() == count && it.bytes().all(|it| it.is_ascii_digit()))
            };
            let mut parts = hlc.split(':');
            let is_right = is_digits(parts.next(), 13)
                && is_digits(parts.next(), 4)
                && parts.next() == Some("$server")
                && parts.next().is_none();
            ensure!(is_right, "the hlc of a server op is {hlc}");
            let last = self.last_hlc.insert(workspace, hlc.clone());
            ensure!(last.is_none_or(|last| last < hlc), "the hlc of a server op falls to {hlc}");
        }
        Ok(())
    }

    /// Log, records and rows must be what the model says.
    fn check(&mut self) -> Result<()> {
        check(&mut self.client, &self.model, None)?;
        let mut expected = Vec::new();
        let mut stored = Vec::new();
        for (table, rows) in TABLE.iter().zip(&self.typed.tables) {
            let shown = |value: &schema::Value| match value {
                schema::Value::Null => "NULL".to_owned(),
                value => format!("<{}>", value.text()),
            };
            for row in rows.values() {
                let values: Vec<String> = row.values.iter().map(shown).collect();
                expected.push(format!("{} {}", table.name, values.join(" ")));
            }
            let columns = table.columns.iter().map(|column| column.name);
            let columns =
                columns.map(|name| format!("coalesce('<' || {name}::text || '>', 'NULL')"));
            let columns = columns.collect::<Vec<_>>().join(", ");
            let sql = format!("select concat_ws(' ', '{0}', {columns}) from {0}", table.name);
            stored.extend(self.client.query(&sql, &[])?.iter().map(|row| row.get::<_, String>(0)));
        }
        stored.sort_unstable();
        expected.sort_unstable();
        difference(&stored, &expected).map_or(Ok(()), |difference| bail!(difference))
    }
}

/// A text as an SQL literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
