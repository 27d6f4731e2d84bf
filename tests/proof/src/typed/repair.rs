//! Checks and repairs, GC and pulls of the simulation.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use sync_ext_model::own_tables::{difference, is_image};
use sync_ext_model::refusal::unexpected;
use sync_ext_model::reply::read;
use sync_ext_model::{Cutoffs, Edit, Pull, RowChange, Rows};

use super::apply::{fields, image, is_removed};
use super::calling::Call;
use super::chance::Chance;
use super::rows::Row;
use super::schema::{ID, TABLE, TableId, Value, WORKSPACE};
use super::world::{World, quoted};
use crate::common::rows::check_reply;

/// A row that is not its record, or the other way round.
struct Found {
    workspace: String,
    pk: String,
    kind: &'static str,
    fields: Vec<String>,
}

impl World {
    /// Statements that nothing captures, a comparison, and a repair.
    pub fn drift(&mut self, chance: &mut Chance) -> Result<()> {
        self.must("set sync_ext.capture = off")?;
        self.typed.is_capturing = false;
        for _ in 0..1 + chance.below(3) {
            self.call_alone(&Call::Statement(chance.statement()))?;
        }
        self.must("set sync_ext.capture = on")?;
        self.typed.is_capturing = true;
        self.check_tables()?;
        // What is marked meanwhile is captured, with what was not seen of it.
        for _ in 0..chance.below(3) {
            let call = match chance.one_in(2) {
                true => Call::Statement(chance.statement()),
                false => self.some_push(chance.below(4), chance),
            };
            self.call_alone(&call)?;
        }
        let toward = chance.of_these(&["log", "table", "table"]);
        let first = chance.below(TABLE.len());
        for at in 0..TABLE.len() {
            self.repair((first + at) % TABLE.len(), toward)?;
        }
        if self.check_tables()? > 0 {
            self.tally.add("repairs that constraints refused", 1);
            (0..TABLE.len()).try_for_each(|table| self.repair(table, "log"))?;
        }
        ensure!(self.check_tables()? == 0, "rows and records differ after a repair");
        Ok(())
    }

    /// Returns the number of differences.
    pub fn check_tables(&mut self) -> Result<usize> {
        let mut count = 0;
        for (table, described) in TABLE.iter().enumerate() {
            let reply = self.must(&format!("select sync_check_table('{}')", described.name))?;
            let (rows, records) = (self.rows(table), self.records(table));
            let found: Vec<Json> = self
                .row_differences(table)
                .into_iter()
                .chain(self.missing_rows(table))
                .map(|Found { workspace, pk, kind, fields }| {
                    let mut found = json!({"workspaceId": workspace, "pk": pk, "kind": kind});
                    if !fields.is_empty() {
                        found["fields"] = json!(fields);
                    }
                    found
                })
                .collect();
            count += found.len();
            let expected = json!({"table": described.name, "rows": rows.len(), "records": records.len(),
                "differencesTotal": found.len(), "differences": found, "trigger": "ok",
                "columnsChanged": false});
            let reply = serde_json::from_str(&reply.context("no reply")?)?;
            check_reply("a check", &reply, &expected)?;
        }
        self.tally.add("differences that capture did not see", count as u64);
        Ok(count)
    }

    /// The rows that should have records, in the order of their keys.
    fn rows(&self, table: TableId) -> Vec<(String, String, &Row)> {
        let mut rows: Vec<_> = self.typed.tables[table].values().collect();
        rows.sort_by_key(|row| &row.values[ID]);
        let live = |row: &&Row| !is_removed(table, &row.values);
        rows.into_iter()
            .filter(live)
            .filter_map(|row| match &row.values[WORKSPACE] {
                Value::Text(workspace) => Some((workspace.clone(), row.values[ID].text(), row)),
                _ => None,
            })
            .collect()
    }

    /// The live records, in the order in which their workspaces were created.
    fn records(&self, table: TableId) -> Vec<(String, String)> {
        let mut workspaces: Vec<_> = self.model.workspaces.iter().collect();
        workspaces.sort_by_key(|(_, state)| state.number);
        let mut records = Vec::new();
        for (name, state) in workspaces {
            let of_table = state.records.iter().filter(|((of, _), _)| of == TABLE[table].name);
            let live = of_table.filter(|(_, record)| !record.is_deleted);
            records.extend(live.map(|((_, pk), _)| (name.clone(), pk.clone())));
        }
        records
    }

    fn payload(&self, table: TableId, workspace: &str, pk: &str) -> Option<&str> {
        let state = self.model.workspaces.get(workspace)?;
        let record = state.records.get(&(TABLE[table].name.to_owned(), pk.to_owned()))?;
        state.winner(record).filter(|_| !record.is_deleted)?.record()
    }

    fn row_differences(&self, table: TableId) -> Vec<Found> {
        let compare = |(workspace, pk, row): (String, String, &Row)| {
            let image = image(table, &row.values);
            let Some(payload) = self.payload(table, &workspace, &pk) else {
                return Some(Found { workspace, pk, kind: "missing_record", fields: Vec::new() });
            };
            if is_image(payload, &image) {
                return None;
            }
            let (changed, more) = difference(payload, &image);
            let fields = changed.into_iter().map(|(name, _)| name).chain(more).collect();
            Some(Found { workspace, pk, kind: "different", fields })
        };
        self.rows(table).into_iter().filter_map(compare).collect()
    }

    fn missing_rows(&self, table: TableId) -> Vec<Found> {
        let is_missing = |(workspace, pk): &(String, String)| {
            self.typed.image(workspace, &(TABLE[table].name.to_owned(), pk.clone())).is_none()
        };
        let missing = self.records(table).into_iter().filter(is_missing);
        missing
            .map(|(workspace, pk)| Found { workspace, pk, kind: "missing_row", fields: Vec::new() })
            .collect()
    }

    fn repair(&mut self, table: TableId, toward: &str) -> Result<()> {
        let before = (self.model.clone(), self.typed.clone(), self.tally.clone());
        self.repaired(table, toward)?;
        // Postgres chooses the order in which it updates rows.
        let toward = if self.typed.is_ambiguous { "log" } else { toward };
        (self.model, self.typed, self.tally) = before;
        let name = TABLE[table].name;
        self.must(&format!("call sync_repair_table('{name}', '{toward}', pause => '0')"))?;
        let what = match toward {
            "log" => "repairs toward the log",
            _ => "repairs toward the table",
        };
        self.tally.add(what, 1);
        self.repaired(table, toward)
    }

    /// What two batches do, each committed: of rows, and of records without them.
    fn repaired(&mut self, table: TableId, toward: &str) -> Result<()> {
        let name = TABLE[table].name;
        for find in [World::row_differences, World::missing_rows] {
            self.typed.begin();
            let mut by_workspace: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for Found { workspace, pk, .. } in find(self, table) {
                by_workspace.entry(workspace).or_default().push(pk);
            }
            for (workspace, pks) in by_workspace {
                let key = |pk: String| (name.to_owned(), pk);
                if toward == "log" {
                    let marks = pks.into_iter().map(|pk| (workspace.clone(), key(pk)));
                    self.typed.changed.extend(marks);
                } else if self.model.workspaces.contains_key(&workspace) {
                    let change = |pk: String| {
                        let edit = match self.payload(table, &workspace, &pk) {
                            Some(payload) => Edit::Put(completed(table, payload)),
                            None => Edit::Delete,
                        };
                        RowChange { key: key(pk), edit }
                    };
                    let changes: Vec<RowChange> = pks.into_iter().map(change).collect();
                    self.typed.apply(&workspace, &changes);
                }
            }
            self.commit()?;
        }
        Ok(())
    }

    /// As if all entries were old.
    pub fn gc(&mut self, workspace: &str) -> Result<()> {
        // An hour is the shortest retention.
        self.must("update sync_ext.change_log set created_at = now() - interval '2 hours'")?;
        let sql = format!("select sync_gc({}, '1 hour')", quoted(workspace));
        let reply = serde_json::from_str(&self.must(&sql)?.context("no reply")?)?;
        let cutoffs = Cutoffs { entries: 0, heartbeats: -1, forgotten: -1 };
        let collected =
            self.model.collect(None, Some(workspace), cutoffs, 10_000, &BTreeSet::new());
        let collected = collected.map_err(unexpected)?;
        self.tally.add("entries purged", collected.changes as u64);
        self.tally.add("tombstones purged", collected.tombstones as u64);
        check_reply("gc", &reply, &collected.reply())
    }

    /// A device pulls all that is new to it, and may acknowledge it.
    pub fn pull(&mut self, device: usize, chance: &mut Chance) -> Result<()> {
        let (name, workspace, cursor) = {
            let device = &self.devices[device];
            (device.name.clone(), device.workspace.clone(), device.cursor)
        };
        let sql = format!("select sync_pull({}, {cursor}, 1000)", quoted(&workspace));
        let mut reply = read(&self.must(&sql)?.context("no reply")?)?;
        reply.as_object_mut().context("no object")?.remove("proof");
        let pull =
            Pull { workspace: workspace.clone(), cursor, limit: Some(1000), ..Pull::default() };
        let expected = self.model.pull(&pull).map_err(unexpected)?.reply;
        check_reply("a pull", &reply, &expected)?;
        self.tally.add("pulls", 1);
        let Some(state) = self.model.workspaces.get(&workspace) else { return Ok(()) };
        self.devices[device].see(state);
        if chance.one_in(2) {
            let cursor = self.devices[device].cursor;
            let (one, other) = (quoted(&workspace), quoted(&name));
            let reply =
                self.must(&format!("select sync_update_cursor({one}, {other}, {cursor})"))?;
            let expected = self.model.acknowledge(None, &workspace, &name, cursor, 0);
            let reply = serde_json::from_str(&reply.context("no reply")?)?;
            check_reply("an acknowledgement", &reply, &expected.map_err(unexpected)?)?;
        }
        Ok(())
    }
}

/// With all fields of the table.
fn completed(table: TableId, payload: &str) -> String {
    let mut whole: Json = serde_json::from_str(payload).unwrap_or_default();
    for (_, column) in fields(table) {
        if whole.get(column.name).is_none() {
            whole[column.name] = Json::Null;
        }
    }
    whole.to_string()
}
