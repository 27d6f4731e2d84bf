//! A client that follows the rules for clients: synced state and pending ops apart,
//! cursor and proof stored with the changes that they cover, an outbox that keeps an op
//! until the server's history has it.
//!
//! `push`, `pull`, `snapshot` and `acknowledge` use a connection until they are done,
//! `pull_page` and `snapshot_page` make one call. Tests that lose replies process a
//! reply with `push_answered`, `pull_answered` and `snapshot_answered`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

use anyhow::{Context, Result, ensure};
use postgres::types::ToSql;
use postgres::{Client, GenericClient};
use serde::Deserialize;

pub use crate::outbox::Pending;
use crate::outbox::{Edit, Seen};
use crate::replies::{Change, PullReply, PushReply, PushResult, Winner};
use crate::state::Line;
pub use scopes::{List, list};

/// What LWW compares. The derived order is that of the contract: hlc and opId (lower
/// case) by bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    pub clock: i64,
    pub hlc: String,
    pub op_id: String,
}

/// A record as pulled; `payload` is `None` for a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Of its newest entry, as is that op's id.
    pub version: i64,
    pub newest: String,
    /// The register's.
    pub revision: Revision,
    pub payload: Option<String>,
    pub deleted: bool,
    /// Those that patches hold.
    pub fields: BTreeMap<String, Revision>,
    /// For a device that follows scopes, in a table that has them.
    pub scope: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Device {
    pub id: String,
    pub workspace: String,
    /// The tables that it syncs; empty for all.
    pub tables: Vec<String>,
    /// The scopes that it follows, which belong to cursor and proof, and those that it is to
    /// go over to.
    pub scopes: List,
    pub next_scopes: Option<List>,
    pub cursor: i64,
    pub proof: Option<String>,
    pub synced: BTreeMap<(String, String), Synced>,
    /// Of records that went outside; see [`Device::drop_marks`].
    pub marks: BTreeMap<(String, String), Synced>,
    pub keeps_marks: bool,
    /// The highest clock known for a record, including losers and returned winners.
    pub clocks: BTreeMap<(String, String), i64>,
    pub outbox: Vec<Pending>,
    /// How many patches have left the outbox because their base was nowhere.
    pub baseless: u64,
    /// True from a snapshot's first page to its last: no pull in between.
    pub snapshot_begun: bool,
    /// It lists only what the next list adds.
    pub joins: bool,
    /// A pull showed that the server lost the history of the cursor, so a snapshot may
    /// be below it. Kept until the snapshot is complete.
    pub history_lost: bool,
    /// Set while it reads from a standby, whose head may be behind the primary.
    pub reads_standby: bool,
}

/// A snapshot in progress: it takes effect with its last page.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub page_token: Option<String>,
    records: BTreeMap<(String, String), Synced>,
}

/// The results of a push, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    pub applied: usize,
    pub lost: usize,
    pub replayed: usize,
    pub refused: usize,
}

impl Add for Answered {
    type Output = Answered;

    fn add(self, other: Answered) -> Answered {
        Answered {
            applied: self.applied + other.applied,
            lost: self.lost + other.lost,
            replayed: self.replayed + other.replayed,
            refused: self.refused + other.refused,
        }
    }
}

/// An op that lost, at its turn, to a delete.
#[derive(Clone, Debug)]
pub struct LostToDelete {
    pub op: Pending,
    /// The record as the outbox has it.
    pub seen: Seen,
    pub winner: Revision,
}

/// The result of one pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulled {
    Page { changes: usize, has_more: bool },
    SnapshotRequired { reason: String },
}

/// The result of a snapshot's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    More,
    /// It was the last page: the device continues from here.
    Whole,
    /// "standby is behind the snapshot": request the same page later, or elsewhere.
    Behind,
    /// "snapshot expired": begin again.
    Expired,
    /// It was the last page of what a new list adds; the cursor is still that of before.
    Joined,
    /// Complete, but its watermark is below what this device has seen, because a
    /// standby lags: the device discards it and pulls.
    Old,
}

impl Device {
    pub fn new(id: &str, workspace: &str) -> Device {
        Device { id: id.to_owned(), workspace: workspace.to_owned(), ..Device::default() }
    }

    /// Pushes the ops in the outbox that have no version from a push reply.
    pub fn push(&mut self, client: &mut Client) -> Result<Answered> {
        let unanswered = self.outbox.iter().filter(|op| op.told.is_none() && !op.waits);
        let ops: Vec<(String, String)> =
            unanswered.map(|op| (op.revision.op_id.clone(), op.json.clone())).collect();
        self.push_these(client, &ops)
    }

    /// Halves a batch that is refused as a whole because of its ops; a single op that
    /// is refused leaves the outbox.
    fn push_these(&mut self, client: &mut Client, ops: &[(String, String)]) -> Result<Answered> {
        let json: Vec<&str> = ops.iter().map(|(_, json)| json.as_str()).collect();
        let json = format!("[{}]", json.join(","));
        let sql = "select sync_push($1, $2::text::json)::text";
        let op_ids: Vec<String> = ops.iter().map(|(op_id, _)| op_id.clone()).collect();
        match client.query_one(sql, &[&self.workspace, &json]) {
            Err(error) if refuses_content(&error) => match ops {
                [] => Err(error.into()),
                [(op_id, _)] => {
                    self.outbox.retain(|op| op.revision.op_id != *op_id);
                    Ok(Answered { refused: 1, ..Answered::default() })
                }
                _ => {
                    let (first, second) = ops.split_at(ops.len() / 2);
                    let first = self.push_these(client, first)?;
                    Ok(first + self.push_these(client, second)?)
                }
            },
            reply => Ok(self.push_answered(&op_ids, reply?.get(0))?.0),
        }
    }

    /// Processes the reply to a push of the ops with these opIds, in the order sent. A
    /// refused op leaves the outbox at once, unless it is a patch whose base is missing;
    /// others stay until pulls, or a version that
    /// the cursor has already passed, show that they arrived. Returns the ops that lost
    /// to a delete: puts made without knowing the record must be made again. A delete
    /// with a later version is excluded, because its author knew the record.
    pub fn push_answered(
        &mut self,
        sent: &[String],
        reply: &str,
    ) -> Result<(Answered, Vec<LostToDelete>)> {
        let reply: PushReply = serde_json::from_str(reply)?;
        ensure!(reply.results.len() == sent.len(), "a result per op");
        let mut answered = Answered::default();
        let mut lost = Vec::new();
        for (op_id, result) in sent.iter().zip(&reply.results) {
            match (result.success, result.replayed, result.applied) {
                (false, ..) => answered.refused += 1,
                (_, true, _) => answered.replayed += 1,
                (.., true) => answered.applied += 1,
                (.., false) => answered.lost += 1,
            }
            let Some(place) = self.outbox.iter().position(|op| op.revision.op_id == *op_id) else {
                // Sent twice in one batch, and removed by its first result.
                continue;
            };
            self.learn(place, result);
            if let Some(Winner { kind, revision, server_version, .. }) = &result.winner
                && kind == "delete"
                && Some(*server_version) < result.server_version
            {
                let op = self.outbox[place].clone();
                let seen = Seen::of(None, self.pending(&op.table, &op.pk));
                lost.push(LostToDelete { op, seen, winner: revision.clone() });
            }
            if result.error_code.as_deref() == Some("BASE_MISSING") {
                self.outbox[place].waits = true;
            } else if !result.success || self.has_passed(result) {
                self.outbox.remove(place);
            }
        }
        Ok((answered, lost))
    }

    fn learn(&mut self, place: usize, result: &PushResult) {
        let op = &mut self.outbox[place];
        let winner = result.winner.as_ref();
        op.told = result.server_version.max(winner.map(|winner| winner.server_version));
        let key = (op.table.clone(), op.pk.clone());
        for shown in winner.into_iter().chain(&result.current) {
            self.know_clocks(&key, &shown.revision, &shown.fields);
        }
    }

    /// Whether the cursor has passed a version in this result.
    fn has_passed(&self, result: &PushResult) -> bool {
        let winner = result.winner.as_ref().map(|winner| winner.server_version);
        result.server_version.into_iter().chain(winner).any(|version| version <= self.cursor)
    }

    /// The newest entry of a record as its user sees it: the parent of a new edit.
    pub fn parent(&self, table: &str, pk: &str) -> String {
        self.seen(table, pk).newest.unwrap_or_else(|| "none".to_owned())
    }

    /// A record as its user sees it.
    pub fn seen(&self, table: &str, pk: &str) -> Seen {
        let key = (table.to_owned(), pk.to_owned());
        let synced = self.synced.get(&key).or_else(|| self.marks.get(&key));
        Seen::of(synced, self.pending(table, pk))
    }

    /// The record's ops in the outbox.
    pub fn pending(&self, table: &str, pk: &str) -> impl Iterator<Item = &Pending> {
        self.outbox.iter().filter(move |op| op.table == table && op.pk == pk)
    }

    fn know_clocks(
        &mut self,
        key: &(String, String),
        revision: &Revision,
        fields: &BTreeMap<String, Revision>,
    ) {
        let clocks = fields.values().map(|by| by.clock).chain([revision.clock]);
        let known = self.clocks.entry(key.clone()).or_default();
        *known = clocks.fold(*known, i64::max);
    }

    /// Pulls to the end, with a snapshot first if the server requires one. Returns the
    /// number of changes seen.
    pub fn pull(&mut self, client: &mut Client, page_limit: i32, latest: bool) -> Result<usize> {
        let mut seen = 0;
        loop {
            if self.snapshot_begun && !self.snapshot(client, 500)? {
                return Ok(seen);
            }
            if let Pulled::Page { changes, has_more } =
                self.pull_page(client, page_limit, latest)?
            {
                seen += changes;
                if !has_more && !self.snapshot_begun {
                    return Ok(seen);
                }
            }
        }
    }

    /// Pulls one page, or finds that a snapshot must come first.
    pub fn pull_page(
        &mut self,
        client: &mut Client,
        page_limit: i32,
        latest: bool,
    ) -> Result<Pulled> {
        ensure!(!self.snapshot_begun, "a snapshot that has begun is finished before any pull");
        let Device { workspace, cursor, tables, proof, .. } = &*self;
        let scopes = Device::names_of(&self.scopes);
        let all: [&(dyn ToSql + Sync); 7] =
            [workspace, cursor, &page_limit, tables, &latest, proof, &scopes];
        // Older servers know no scopes.
        let reply = match scopes.is_some() {
            true => call(client, "select sync_pull($1, $2, $3, $4, $5, $6, $7)::text", &all)?,
            false => call(client, "select sync_pull($1, $2, $3, $4, $5, $6)::text", &all[..6])?,
        };
        self.pull_answered(&reply)
    }

    pub fn pull_answered(&mut self, reply: &str) -> Result<Pulled> {
        let reply: PullReply = serde_json::from_str(reply)?;
        if reply.requires_snapshot {
            let reason = reply.reason.context("a reason")?;
            (self.snapshot_begun, self.joins) = (true, false);
            self.history_lost |= !["cursor_expired", "scopes_changed"].contains(&&*reason);
            return Ok(Pulled::SnapshotRequired { reason });
        }
        let (changes, has_more) = (reply.changes.len(), reply.has_more);
        for change in reply.changes {
            let key = (change.table_name.clone(), change.pk.clone());
            self.know_clocks(&key, &change.stamp, &change.fields);
            match &*change.op {
                "leave" => self.leave(change),
                _ if change.applied => self.apply(change),
                _ => {}
            }
        }
        self.cursor = reply.next_cursor;
        self.proof = reply.proof;
        if !has_more {
            self.clear_outbox(reply.server_version);
            self.go_over();
        }
        Ok(Pulled::Page { changes, has_more })
    }

    /// A patch without the record is followed by an op that has it.
    fn apply(&mut self, change: Change) {
        let deleted = change.op == "delete";
        let payload = change.payload.filter(|_| !deleted).map(|raw| raw.get().to_owned());
        if payload.is_none() && !deleted {
            return;
        }
        let incoming = Synced {
            version: change.server_version,
            newest: change.stamp.op_id.clone(),
            revision: change.base.unwrap_or(change.stamp),
            payload,
            deleted,
            fields: change.fields,
            scope: change.scope,
        };
        self.take((change.table_name, change.pk), incoming);
    }

    /// After a pull or snapshot: an op leaves if synced state holds it or what replaced
    /// it; a patch that waits for its base leaves if that is nowhere. The server has lost an op if the cursor has passed its answered
    /// version without that, or the version is above the primary's head: it is sent
    /// again.
    fn clear_outbox(&mut self, head: i64) {
        let (synced, marks) = (&self.synced, &self.marks);
        let (cursor, reads_standby) = (self.cursor, self.reads_standby);
        self.outbox.retain_mut(|op| {
            let Some(told) = op.told else { return true };
            let key = (op.table.clone(), op.pk.clone());
            if op.is_held(synced.get(&key).or_else(|| marks.get(&key))) {
                return false;
            }
            if told <= cursor || !reads_standby && head < told {
                op.told = None;
            }
            true
        });
        let puts: BTreeSet<Revision> = self
            .outbox
            .iter()
            .filter(|op| matches!(op.edit, Edit::Put(_)))
            .map(|op| op.revision.clone())
            .collect();
        let before = self.outbox.len();
        self.outbox.retain_mut(|op| {
            let Edit::Patch { base, .. } = &op.edit else { return true };
            let synced = synced.get(&(op.table.clone(), op.pk.clone()));
            let is_known = synced.is_some_and(|it| it.revision == *base) || puts.contains(base);
            !std::mem::take(&mut op.waits) || is_known
        });
        self.baseless += (before - self.outbox.len()) as u64;
        self.drop_marks();
    }

    /// Acknowledges this device's cursor.
    pub fn acknowledge(&self, client: &mut Client) -> Result<()> {
        let sql = "select sync_update_cursor($1, $2, $3)::text";
        call(client, sql, &[&self.workspace, &self.id, &self.cursor])?;
        Ok(())
    }

    pub fn state(&self) -> Vec<Line> {
        self.synced
            .iter()
            .map(|((table, pk), Synced { revision, deleted, .. })| {
                let operation = if *deleted { "delete" } else { "put" };
                let Revision { clock, hlc, op_id } = revision.clone();
                Line(table.clone(), pk.clone(), clock, hlc, op_id, operation.to_owned())
            })
            .collect()
    }
}

/// Whether a batch is refused because of its ops, so that it would be refused again.
fn refuses_content(error: &postgres::Error) -> bool {
    error.code().is_some_and(|code| ["22", "54"].contains(&&code.code()[..2]))
}

/// A function's reply, as text.
pub fn call(
    client: &mut impl GenericClient,
    sql: &str,
    arguments: &[&(dyn ToSql + Sync)],
) -> Result<String> {
    // A named prepared statement, which the server keeps per connection, as drivers do.
    Ok(client.query_one(sql, arguments)?.get(0))
}

mod scopes;
mod snapshot;
#[cfg(test)]
mod tests;
