//! The views that show records, as arrays of their columns.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::members::Role;
use crate::op::{Revision, word};
use crate::server::{Entry, Record, Server, Workspace, sees};

impl Server {
    /// The workspaces that a caller may read.
    fn readable(&self, user: Option<&str>) -> impl Iterator<Item = (&String, &Workspace)> {
        let may_read = move |name: &str| self.allow(user, name, Role::Viewer).is_ok();
        self.workspaces.iter().filter(move |(name, _)| may_read(name))
    }

    /// `current_record` and `tombstone`.
    pub fn records(&self, user: Option<&str>) -> (Vec<Value>, Vec<Value>) {
        let (mut records, mut tombstones) = (Vec::new(), Vec::new());
        for (name, state) in self.readable(user) {
            let visible = state.records.iter().filter(|(_, record)| sees(user, &record.owner));
            for ((table, pk), record) in visible {
                let entry = state.winner(record);
                let payload = entry.filter(|_| !record.is_deleted).map(Entry::payload);
                let fields = entry.and_then(|entry| entry.merged.as_ref()).map(|it| it.fields());
                let (version, is_deleted) = (record.version, record.is_deleted);
                let (revision, is_logged) = (record.revision.json(), entry.is_some());
                records.push(json!([
                    name,
                    table,
                    pk,
                    payload,
                    is_deleted,
                    revision,
                    version,
                    is_logged,
                    fields,
                    record.scope
                ]));
                if is_deleted {
                    tombstones.push(json!([name, table, pk, version, is_logged]));
                }
            }
        }
        (records, tombstones)
    }

    /// `conflict`.
    pub fn conflicts(&self, user: Option<&str>) -> Vec<Value> {
        let mut rows = Vec::new();
        for (name, state) in self.readable(user) {
            let mut lost: Vec<(i64, &Entry)> = state
                .log
                .iter()
                // What lost itself, all or in part, or what it has replaced unseen.
                .filter_map(|(version, by)| match &by.overwrote {
                    Some(_) if by.applied => Some((by.supersedes?, by)),
                    _ => (!by.applied || !by.lost_fields().is_empty()).then_some((*version, by)),
                })
                .collect();
            lost.sort_by_key(|(version, _)| *version);
            rows.extend(lost.into_iter().filter_map(|(at, by)| state.conflict(name, user, at, by)));
        }
        rows
    }
}

impl Workspace {
    fn conflict(&self, name: &str, user: Option<&str>, at: i64, by: &Entry) -> Option<Value> {
        let entry = self.log.get(&at)?;
        let op = &entry.op;
        let record = self.records.get(&op.key()).filter(|record| sees(user, &record.owner))?;
        let winner = self.winner(record);
        let payload = winner.filter(|_| !record.is_deleted).map(Entry::payload);
        Some(json!([
            name,
            op.table,
            op.pk,
            match &op.base {
                Some(base) => Some(lost_by(base, record)),
                None => decided_by(&op.revision, &record.revision),
            },
            by.overwrote.is_some(),
            at,
            op.word(),
            entry.written(),
            op.device_id,
            op.revision.json(),
            record.version,
            word(record.is_deleted),
            payload,
            winner.map(|winner| &winner.op.device_id),
            record.revision.json(),
            Some(by.lost_fields()).filter(|fields| !fields.is_empty()),
        ]))
    }
}

impl Entry {
    /// Of a patch: the fields that it did not win, as far as that is stored.
    fn lost_fields(&self) -> BTreeSet<String> {
        let won = |name: &String| match (&self.merged, self.applied) {
            (_, false) => false,
            (None, true) => true,
            (Some(merged), true) => merged.fields[name] == self.op.revision,
        };
        self.op.fields().into_iter().map(|(name, _)| name).filter(|name| !won(name)).collect()
    }
}

/// Why a patch of this base has lost.
pub(crate) fn lost_by(base: &Revision, record: &Record) -> &'static str {
    if record.is_deleted || *base != record.revision { "base" } else { "fields" }
}

/// The part in which two revisions differ first.
pub(crate) fn decided_by(one: &Revision, other: &Revision) -> Option<&'static str> {
    if one.clock != other.clock {
        Some("clock")
    } else if one.hlc != other.hlc {
        Some("hlc")
    } else {
        (one.op_id != other.op_id).then_some("opId")
    }
}
