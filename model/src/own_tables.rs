//! Records that are rows of an app's own tables: what a push writes to the rows, and the
//! server ops that bring records to their rows.
//!
//! What the rows make of it is somebody else's to say, by [`Rows`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::json::{Members, compact, is_same};
use crate::op::{Op, Revision};
use crate::patch::{Merged, Turn};
use crate::refusal::Outcome;
use crate::server::{Entry, Key, Record, Server, Workspace};

/// The device that the server's own ops name.
pub const SERVER: &str = "$server";

/// The typed rows of all workspaces.
pub trait Rows {
    fn is_attached(&self, table: &str) -> bool;
    /// Why an op cannot be one of its table, whatever the rows are.
    fn admit(&self, op: &Op) -> Option<RowRefusal>;
    /// Writes rows; says for each why it was refused, if it was.
    fn apply(&mut self, workspace: &str, changes: &[RowChange]) -> Vec<Option<RowRefusal>>;
    /// The row of a record, if it has one.
    fn image(&self, workspace: &str, key: &Key) -> Option<String>;
    /// The records of a workspace whose rows changed since they were asked for.
    fn take_changed(&mut self, workspace: &str) -> BTreeSet<Key>;
    /// Whether a row is to be looked at once more.
    fn set_changed(&mut self, workspace: &str, key: &Key, is_changed: bool);
    /// The hlc and opId of the server op at a version, which no model can know.
    fn stamp(&self, workspace: &str, version: i64) -> (String, String);
}

/// What becomes of the row of a record.
#[derive(Clone, Debug)]
pub struct RowChange {
    pub key: Key,
    pub edit: Edit,
}

/// With the fields to write, as JSON.
#[derive(Clone, Debug)]
pub enum Edit {
    Delete,
    Put(String),
    Patch(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowRefusal {
    pub code: &'static str,
    /// The words, where the contract fixes them.
    pub words: Option<&'static str>,
    pub sql_state: Option<&'static str>,
    pub constraint: Option<&'static str>,
}

impl RowRefusal {
    pub fn may_come(&self) -> bool {
        self.sql_state == Some("23503")
    }

    pub(crate) fn item(&self, op_id: &Value) -> Value {
        let mut item = json!({"opId": op_id, "success": false, "errorCode": self.code});
        let texts =
            [("error", self.words), ("sqlState", self.sql_state), ("constraint", self.constraint)];
        for (key, text) in texts {
            if let Some(text) = text {
                item[key] = json!(text);
            }
        }
        if self.may_come() {
            item["retry"] = json!(true);
        }
        item
    }
}

/// Where there are no attached tables.
pub(crate) struct NoRows;

impl Rows for NoRows {
    fn is_attached(&self, _: &str) -> bool {
        false
    }

    fn admit(&self, _: &Op) -> Option<RowRefusal> {
        None
    }

    fn apply(&mut self, _: &str, changes: &[RowChange]) -> Vec<Option<RowRefusal>> {
        vec![None; changes.len()]
    }

    fn image(&self, _: &str, _: &Key) -> Option<String> {
        None
    }

    fn take_changed(&mut self, _: &str) -> BTreeSet<Key> {
        BTreeSet::new()
    }

    fn set_changed(&mut self, _: &str, _: &Key, _: bool) {}

    fn stamp(&self, _: &str, _: i64) -> (String, String) {
        Default::default()
    }
}

/// A server op as its caller gives it.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// put, patch or delete.
    pub word: &'a str,
    pub table: &'a str,
    pub pk: &'a str,
    pub payload: Option<&'a str>,
    /// As the server chose them.
    pub hlc: &'a str,
    pub op_id: &'a str,
}

impl Server {
    /// A push by a trusted caller.
    pub fn push_rows(
        &mut self,
        rows: &mut dyn Rows,
        workspace: &str,
        ops: &str,
        at: i64,
    ) -> Outcome {
        self.push_to(rows, None, workspace, |_| ops.to_owned(), at)
    }

    /// sync_put, sync_patch and sync_delete.
    pub fn write(
        &mut self,
        rows: &mut dyn Rows,
        workspace: &str,
        op: Written<'_>,
        at: i64,
    ) -> Outcome {
        let reply = self.push_to(rows, None, workspace, |state| state.stamped(op), at)?;
        Ok(reply["results"][0].clone())
    }

    /// What a commit does: brings the records of all workspaces to their rows.
    pub fn capture_all(&mut self, rows: &mut dyn Rows, changed: BTreeSet<String>, at: i64) {
        for workspace in changed {
            let known = self.workspaces.remove(&workspace);
            let is_known = known.is_some();
            let mut state = known.unwrap_or_else(|| self.new_workspace());
            self.capture(rows, &workspace, &mut state, at);
            if is_known || state.head > 0 {
                self.workspaces.insert(workspace, state);
            }
        }
    }

    /// One op per record that is not what its row is.
    pub(crate) fn capture(
        &self,
        rows: &mut dyn Rows,
        workspace: &str,
        state: &mut Workspace,
        at: i64,
    ) {
        for key in rows.take_changed(workspace) {
            let patches = self.tables.get(&key.0).is_some_and(|table| table.patches);
            let image = rows.image(workspace, &key);
            let record = state.records.get(&key).filter(|record| !record.is_deleted);
            let payload = record.and_then(|record| state.winner(record)?.record());
            let (payload, base) = match (&image, record) {
                (None, None) => continue,
                (None, Some(_)) => (None, None),
                (Some(image), None) => (Some(image.clone()), None),
                (Some(image), Some(record)) => {
                    let (fields, more) = difference(payload.unwrap_or_default(), image);
                    match (fields.is_empty(), more.is_empty()) {
                        (true, true) => continue,
                        (false, true) if patches => {
                            (Some(object(&fields)), Some(record.revision.clone()))
                        }
                        _ => (Some(image.clone()), None),
                    }
                }
            };
            let clock = state.next_clock(state.records.get(&key));
            let (hlc, op_id) = rows.stamp(workspace, state.head + 1);
            let op = Op {
                table: key.0.clone(),
                pk: key.1.clone(),
                is_delete: image.is_none(),
                base,
                payload,
                revision: Revision { clock, hlc, op_id },
                device_id: SERVER.to_owned(),
                parent: None,
                expected: None,
            };
            let turn = match (&op.base, record, image) {
                (Some(_), Some(record), Some(payload)) => {
                    let mut fields = state.fields(record);
                    let won = op.fields().into_iter();
                    fields.extend(won.map(|(name, _)| (name, op.revision.clone())));
                    Turn::Merges { merged: Merged { payload, fields }, lost: Vec::new() }
                }
                _ => Turn::Replaces,
            };
            let Some(table) = self.tables.get(&key.0) else { continue };
            state.append(&op, turn, table, (None, None), at);
        }
    }
}

impl Workspace {
    /// The clock of an edit that has seen the record.
    fn next_clock(&self, record: Option<&Record>) -> i64 {
        let Some(record) = record else { return 1 };
        let fields = self.fields(record);
        fields.values().map(|by| by.clock).fold(record.revision.clock, i64::max) + 1
    }

    fn stamped(&self, op: Written<'_>) -> String {
        let record = self.records.get(&(op.table.to_owned(), op.pk.to_owned()));
        let unknown = || json!({"clock": 0, "hlc": "0", "opId": op.op_id});
        let mut pushed = json!({"operation": op.word, "tableName": op.table, "pk": op.pk, "stamp":
            {"clock": self.next_clock(record), "hlc": op.hlc, "opId": op.op_id, "deviceId": SERVER}});
        if op.word == "patch" {
            pushed["base"] = record.map_or_else(unknown, |record| record.revision.json());
        }
        let pushed = pushed.to_string();
        let open = &pushed[..pushed.len() - 1];
        let payload = op.payload.map_or(String::new(), |json| format!(",\"payload\":{json}"));
        format!("[{open}{payload}}}]")
    }

    /// Writes the rows of records whose newest op is one of this batch and not written yet.
    /// False if one was refused: then the ops are decided again without it.
    pub(crate) fn apply(
        &self,
        rows: &mut dyn Rows,
        workspace: &str,
        before: i64,
        applied: &mut BTreeMap<Key, String>,
        refused: &mut HashMap<String, RowRefusal>,
    ) -> bool {
        let mut changes = Vec::new();
        for (key, record) in &self.records {
            let Some(newest) = self.log.get(&record.version) else { continue };
            let is_written = applied.get(key) == Some(&newest.op.revision.op_id);
            if record.version > before && rows.is_attached(&key.0) && !is_written {
                let edit = self.edit(before, record, newest);
                changes.push(RowChange { key: key.clone(), edit });
            }
        }
        if changes.is_empty() {
            return true;
        }
        let verdicts = rows.apply(workspace, &changes);
        let mut is_done = true;
        for (RowChange { key, .. }, verdict) in changes.into_iter().zip(verdicts) {
            let op_id = self.log[&self.records[&key].version].op.revision.op_id.clone();
            match verdict {
                None => drop(applied.insert(key, op_id)),
                Some(refusal) => {
                    refused.insert(op_id, refusal);
                    is_done = false;
                }
            }
        }
        is_done
    }

    fn edit(&self, before: i64, record: &Record, newest: &Entry) -> Edit {
        if record.is_deleted {
            return Edit::Delete;
        }
        let whole = newest.record().unwrap_or("{}");
        let is_known = |entry: &&Entry| entry.op.revision == record.revision;
        let register = self.log.range(before + 1..).map(|(_, entry)| entry).find(is_known);
        if newest.merged.is_none() || register.is_some() {
            return Edit::Put(whole.to_owned());
        }
        let members = Members::of(whole).unwrap_or_default();
        let mut won = BTreeMap::new();
        for (_, entry) in self.log.range(before + 1..) {
            let is_of = entry.op.key() == newest.op.key() && entry.applied;
            for (name, _) in entry.op.fields() {
                if is_of && !entry.lost.contains(&name) {
                    let value = members.get(&name).unwrap_or("null").to_owned();
                    won.insert(name, value);
                }
            }
        }
        Edit::Patch(object(&won.into_iter().collect::<Vec<_>>()))
    }

    /// What is stored of the records that a push wrote is what their rows are.
    pub(crate) fn read_images<'k>(
        &mut self,
        rows: &mut dyn Rows,
        workspace: &str,
        written: impl Iterator<Item = &'k Key>,
    ) {
        for key in written {
            let Some(record) = self.records.get(key) else { continue };
            let image = rows.image(workspace, key);
            // What became of a row that is gone, or is there again, is for capture.
            rows.set_changed(workspace, key, image.is_none() != record.is_deleted);
            let (Some(image), false) = (image, record.is_deleted) else { continue };
            let Some(entry) = self.log.get_mut(&record.version) else { continue };
            let payload = entry.record().unwrap_or("{}");
            if is_image(payload, &image) {
                continue;
            }
            entry.pushed = Some(entry.op.payload.clone().unwrap_or_default());
            match &mut entry.merged {
                Some(merged) => merged.payload = image,
                None => entry.op.payload = Some(image),
            }
        }
    }
}

pub fn is_image(payload: &str, image: &str) -> bool {
    let (fields, more) = difference(payload, image);
    fields.is_empty() && more.is_empty()
}

/// The fields of an image that a payload has otherwise, with the image's values; and
/// fields that only the payload has. An absent field is NULL.
pub fn difference(payload: &str, image: &str) -> (Vec<(String, String)>, BTreeSet<String>) {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let said = Members::of(payload).unwrap_or_default();
    let known = Members::of(image).unwrap_or_default();
    let mut more: BTreeSet<String> = said.0.iter().map(|(name, _)| text(name)).collect();
    more.remove("workspace_id");
    let mut fields = Vec::new();
    for (name, value) in known.0 {
        let name = text(&name);
        more.remove(&name);
        if !is_same(said.get(&name).unwrap_or("null"), value) {
            fields.push((name, value.to_owned()));
        }
    }
    (fields, more)
}

fn object(fields: &[(String, String)]) -> String {
    let members: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}:{value}", compact(&json!(name)))).collect();
    format!("{{{}}}", members.join(","))
}
