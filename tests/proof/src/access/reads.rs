//! What the contract says of pulls, snapshots and views.

use std::collections::BTreeSet;
use std::ops::Bound;

use serde_json::{Value, json};

use super::model::{Record, Refusal, Server, Workspace, expired, invalid, sees};
use super::step::{Filter, Name, Role};

/// What a proof stands for: the workspace that it was of and the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub of: u64,
    pub version: i64,
}

#[derive(Clone, Debug)]
pub struct PullCall {
    pub workspace: Name,
    pub cursor: i64,
    pub limit: usize,
    pub filter: Filter,
    pub latest: bool,
    pub proof: Option<Proof>,
}

/// A page token, and what it is good for.
#[derive(Clone, Debug)]
pub struct Page {
    pub text: String,
    pub workspace: Name,
    pub user: Option<Name>,
    pub filter: Filter,
    pub watermark: i64,
    pub proof: Proof,
    pub after: (String, String),
}

#[derive(Clone, Debug)]
pub struct SnapshotCall {
    pub workspace: Name,
    pub limit: usize,
    pub filter: Filter,
    pub page: Option<Page>,
}

/// A page of a snapshot, and what the next begins after.
pub struct Listed {
    pub reply: Value,
    pub watermark: i64,
    pub next: Option<(String, String)>,
    pub hidden: u64,
}

fn wants(filter: &Filter, table: &str) -> bool {
    filter.is_empty() || filter.contains(&table)
}

/// What the log holds where a proof points.
#[derive(PartialEq, Eq)]
enum Held {
    Same,
    Other,
    Missing,
}

impl Workspace {
    fn holds(&self, proof: Proof) -> Held {
        match (self.log.contains_key(&proof.version), proof.of == self.number) {
            (true, true) => Held::Same,
            (true, false) => Held::Other,
            (false, _) => Held::Missing,
        }
    }
}

impl Server {
    /// Gives the reply and how many entries were passed over for their owner.
    pub fn pull(&self, user: Option<Name>, call: &PullCall) -> Result<(Value, u64), Refusal> {
        self.allow(user, call.workspace, Role::Viewer)?;
        if call.cursor < 0 {
            return Err(invalid("invalid cursor"));
        }
        let nothing = Workspace::default();
        let state = self.workspaces.get(call.workspace);
        let reason = reason(state, call);
        let state = state.unwrap_or(&nothing);
        let mut reply = json!({
            "changes": [], "nextCursor": call.cursor, "hasMore": false,
            "serverVersion": state.head, "oldestRetainedVersion": state.horizon + 1,
            "requiresSnapshot": reason.is_some(),
            "proof": if reason.is_some() { call.proof.is_some() } else { state.head > 0 },
        });
        if let Some(reason) = reason {
            reply["reason"] = json!(reason);
            return Ok((reply, 0));
        }
        let mut hidden = 0;
        let mut changes: Vec<Value> = Vec::new();
        reply["nextCursor"] = json!(state.head);
        for (version, entry) in state.log.range(call.cursor + 1..) {
            let op = &entry.op;
            let is_latest = || entry.applied && state.records[&op.key()].version == *version;
            if !wants(&call.filter, op.table) || call.latest && !is_latest() {
                continue;
            }
            if !sees(user, &entry.owner) {
                hidden += 1;
                continue;
            }
            if changes.len() == call.limit {
                reply["hasMore"] = json!(true);
                reply["nextCursor"] = changes[call.limit - 1]["serverVersion"].clone();
                break;
            }
            let mut change = json!({
                "serverVersion": version, "tableName": op.table, "pk": op.pk,
                "op": if op.delete { "delete" } else { "put" }, "applied": entry.applied,
                "stamp": {"clock": op.clock, "hlc": op.hlc, "deviceId": op.device, "opId": op.op_id},
            });
            if entry.payload.is_some() {
                change["payload"] = entry.payload_value();
            }
            if let Some(overwrote) = &entry.overwrote {
                change["overwrote"] = json!(overwrote);
            }
            changes.push(change);
        }
        reply["changes"] = json!(changes);
        Ok((reply, hidden))
    }

    pub fn snapshot(&self, user: Option<Name>, call: &SnapshotCall) -> Result<Listed, Refusal> {
        let SnapshotCall { workspace, limit, filter, page } = call;
        let set = |filter: &Filter| filter.iter().copied().collect::<BTreeSet<_>>();
        let is_for_this = |page: &Page| {
            page.workspace == *workspace && page.user == user && set(&page.filter) == set(filter)
        };
        self.allow(user, workspace, Role::Viewer)?;
        if page.as_ref().is_some_and(|page| !is_for_this(page)) {
            return Err(invalid("invalid page_token"));
        }
        let nothing = Workspace::default();
        let state = self.workspaces.get(workspace).unwrap_or(&nothing);
        if let Some(page) = page
            && (state.horizon > page.watermark || state.holds(page.proof) != Held::Same)
        {
            return Err(expired());
        }
        let (mut items, mut hidden, mut has_more) = (Vec::new(), 0, false);
        let mut last = page.as_ref().map(|page| page.after.clone());
        let after = last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        for (key, record) in state.records.range((after, Bound::Unbounded)) {
            let entry = state.log.get(&record.version);
            if !wants(filter, &key.0) || entry.is_none() {
                continue;
            }
            if !sees(user, &record.owner) {
                hidden += 1;
                continue;
            }
            if items.len() == *limit {
                has_more = true;
                break;
            }
            items.push(state.item(key, record));
            last = Some(key.clone());
        }
        let watermark = page.as_ref().map_or(state.head, |page| page.watermark);
        let reply = json!({
            "workspaceId": workspace, "highWatermark": watermark, "items": items,
            "nextPageToken": has_more, "proof": state.head > 0,
        });
        Ok(Listed { reply, watermark, next: last.filter(|_| has_more), hidden })
    }

    /// The rows of both views, as arrays.
    pub fn views(&self, user: Option<Name>) -> (Vec<Value>, Vec<Value>) {
        let (mut records, mut tombstones) = (Vec::new(), Vec::new());
        for (name, state) in &self.workspaces {
            if self.allow(user, name, Role::Viewer).is_err() {
                continue;
            }
            for ((table, pk), record) in &state.records {
                if !sees(user, &record.owner) {
                    continue;
                }
                let entry = state.log.get(&record.version);
                let live = entry.filter(|_| !record.deleted);
                let payload = live.map_or(Value::Null, |entry| entry.payload_value());
                let Record { version, deleted, .. } = record;
                let revision = record.revision();
                let is_logged = entry.is_some();
                records
                    .push(json!([name, table, pk, payload, deleted, revision, version, is_logged]));
                if *deleted {
                    tombstones.push(json!([name, table, pk, version, entry.is_some()]));
                }
            }
        }
        (records, tombstones)
    }
}

impl Workspace {
    fn item(&self, (table, pk): &(String, String), record: &Record) -> Value {
        let mut item = json!({
            "kind": if record.deleted { "tombstone" } else { "row" }, "tableName": table, "pk": pk,
            "revision": record.revision(), "serverVersion": record.version,
        });
        match record.deleted {
            true => item["serverDeletedAt"] = json!(true),
            false => item["payload"] = self.log[&record.version].payload_value(),
        }
        item
    }
}

/// Why a snapshot is needed, in the order of the contract.
fn reason(state: Option<&Workspace>, call: &PullCall) -> Option<&'static str> {
    let Some(state) = state else {
        return (call.cursor > 0 || call.proof.is_some()).then_some("unknown_workspace");
    };
    let held = call.proof.map(|proof| (proof.version, state.holds(proof)));
    match held {
        Some((_, Held::Other)) => return Some("history_diverged"),
        Some((version, Held::Missing)) if version > state.gc_through => {
            return Some("history_diverged");
        }
        _ => {}
    }
    if call.cursor > state.head {
        return Some("cursor_ahead");
    }
    let purged = matches!(held, Some((_, Held::Missing)));
    (purged || call.cursor < state.horizon).then_some("cursor_expired")
}

/// A reply of a read without what no model foretells.
pub fn without_tokens(reply: &mut Value) {
    if let Some(reply) = reply.as_object_mut() {
        reply.remove("snapshotId");
        for key in ["proof", "nextPageToken"] {
            if let Some(token) = reply.get_mut(key) {
                *token = json!(!token.is_null());
            }
        }
    }
}
