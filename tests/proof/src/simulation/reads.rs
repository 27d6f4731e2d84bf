//! What the contract says of pulls, snapshots and acknowledgements.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::model::{Entry, Server, Workspace};
use super::op::revision_json;
use super::step::Page;

/// What the sessions set `sync_ext.max_page_bytes` to: a few elements.
pub const PAGE_BYTES: usize = 1024;

/// How many of the elements make a page: `limit` or fewer, before their bytes
/// pass the setting, but never none.
fn page_length(sizes: impl Iterator<Item = usize>, limit: usize) -> usize {
    let so_far = sizes.scan(0, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    so_far.take(limit).take_while(|sum| *sum <= PAGE_BYTES).count().max(1)
}

/// An element's bytes as the server writes it, with its payload as pushed.
fn size(element: &Value, payload: Option<&str>) -> usize {
    let mut bare = element.clone();
    if let Some(members) = bare.as_object_mut() {
        members.remove("payload");
        if let Some(at) = members.get_mut("serverDeletedAt") {
            // Seconds since 1970 have ten digits for some time.
            *at = json!(1_000_000_000);
        }
    }
    bare.to_string().len() + payload.map_or(0, |payload| ",\"payload\":".len() + payload.len())
}

/// What a proof stands for: an entry and when it was logged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proof {
    pub workspace: String,
    pub head: i64,
    pub op_id: String,
    pub at: i64,
}

/// What a snapshot's page token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    pub watermark: i64,
    pub last: (String, String),
    pub proof: Proof,
}

/// The proof that a reply must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofTold {
    /// The one that was given, or none.
    AsGiven,
    Of(Option<Proof>),
}

/// A pull as it is sent.
#[derive(Clone, Debug)]
pub struct Pull {
    pub workspace: String,
    pub cursor: i64,
    pub page: Page,
    pub tables: Vec<String>,
    /// The token, and what it stands for.
    pub proof: Option<(String, Proof)>,
}

impl Workspace {
    fn proof(&self, workspace: &str) -> Option<Proof> {
        let entry = self.log.get(&self.head)?;
        Some(proof_of(workspace, self.head, entry))
    }

    fn holds(&self, proof: &Proof) -> Option<bool> {
        let entry = self.log.get(&proof.head)?;
        Some(proof_of(&proof.workspace, proof.head, entry) == *proof)
    }

    fn reason(&self, cursor: i64, proof: Option<&Proof>) -> Option<&'static str> {
        let holds = proof.map(|proof| (proof.head, self.holds(proof)));
        match holds {
            Some((_, Some(false))) => return Some("history_diverged"),
            Some((head, None)) if head > self.gc_through => return Some("history_diverged"),
            _ => {}
        }
        if cursor > self.head {
            return Some("cursor_ahead");
        }
        let purged = matches!(holds, Some((_, None)));
        (purged || cursor < self.horizon).then_some("cursor_expired")
    }
}

fn proof_of(workspace: &str, head: i64, entry: &Entry) -> Proof {
    let op_id = entry.op.revision.op_id.clone();
    Proof { workspace: workspace.to_owned(), head, op_id, at: entry.at }
}

fn wanted(tables: &[String], table: &str) -> bool {
    tables.is_empty() || tables.iter().any(|name| name == table)
}

impl Server {
    /// The reply but for its proof, and that.
    pub fn pull(&self, pull: &Pull) -> (Value, ProofTold) {
        let unknown = Workspace::default();
        let found = self.workspaces.get(&pull.workspace);
        let state = found.unwrap_or(&unknown);
        let proof = pull.proof.as_ref().map(|(_, proof)| proof);
        let reason = match found {
            None if pull.cursor > 0 || proof.is_some() => Some("unknown_workspace"),
            None => None,
            Some(state) => state.reason(pull.cursor, proof),
        };
        let mut reply = json!({"changes": [], "nextCursor": pull.cursor, "hasMore": false,
            "serverVersion": state.head, "oldestRetainedVersion": state.horizon + 1,
            "requiresSnapshot": reason.is_some()});
        if let Some(reason) = reason {
            reply["reason"] = json!(reason);
        }
        if reason.is_some() || found.is_none() {
            return (reply, ProofTold::AsGiven);
        }
        let mut changes: Vec<(i64, &Entry, Value)> = state
            .log
            .range(pull.cursor + 1..)
            .filter(|(_, entry)| wanted(&pull.tables, entry.op.table))
            .filter(|(version, entry)| {
                !pull.page.latest
                    || (entry.applied && state.records[&entry.op.key()].version == **version)
            })
            .map(|(version, entry)| (*version, entry, change(*version, entry)))
            .collect();
        let sizes =
            changes.iter().map(|(_, entry, change)| size(change, entry.payload().as_deref()));
        let length = page_length(sizes, pull.page.limit);
        let has_more = changes.len() > length;
        changes.truncate(length);
        let last = changes.last().map(|(version, ..)| *version);
        reply["nextCursor"] = json!(if has_more { last } else { Some(state.head) });
        reply["hasMore"] = json!(has_more);
        reply["changes"] = changes.into_iter().map(|(.., change)| change).collect();
        (reply, ProofTold::Of(state.proof(&pull.workspace)))
    }

    /// The page's reply but for ids and tokens, its proof, and what the next
    /// token stands for; `None` if the snapshot has expired.
    pub fn snapshot(
        &self,
        workspace: &str,
        token: Option<&PageToken>,
        limit: usize,
        tables: &[String],
    ) -> Option<(Value, Option<Proof>, Option<PageToken>)> {
        let unknown = Workspace::default();
        let state = self.workspaces.get(workspace).unwrap_or(&unknown);
        if let Some(token) = token
            && (state.horizon > token.watermark || state.holds(&token.proof) != Some(true))
        {
            return None;
        }
        let watermark = token.map_or(state.head, |token| token.watermark);
        let mut listed: BTreeMap<&(String, String), (Value, usize)> = BTreeMap::new();
        for (key, record) in &state.records {
            let Some(entry) = state.log.get(&record.version) else { continue };
            if wanted(tables, &key.0) && token.is_none_or(|token| *key > token.last) {
                let item = item(record.version, entry);
                let size = size(&item, entry.payload().as_deref());
                listed.insert(key, (item, size));
            }
        }
        let length = page_length(listed.values().map(|(_, size)| *size), limit);
        let has_more = listed.len() > length;
        let last = listed.keys().nth(length - 1).map(|key| (*key).clone());
        let items: Vec<Value> = listed.into_values().take(length).map(|(item, _)| item).collect();
        let proof = state.proof(workspace);
        let next = last.filter(|_| has_more).zip(proof.clone());
        let next = next.map(|(last, proof)| PageToken { watermark, last, proof });
        let reply = json!({"workspaceId": workspace, "highWatermark": watermark, "items": items});
        Some((reply, proof, next))
    }

    /// `None` for a version above the head.
    pub fn acknowledge(
        &mut self,
        workspace: &str,
        device: &str,
        version: i64,
        at: i64,
    ) -> Option<Value> {
        let mut unknown = Workspace::default();
        let known = self.workspaces.contains_key(workspace);
        let state = self.workspaces.get_mut(workspace).unwrap_or(&mut unknown);
        if version > state.head {
            return None;
        }
        let before = state.devices.get(device).map(|(cursor, _)| *cursor);
        let cursor = before.unwrap_or(version).max(version);
        if known {
            state.devices.insert(device.to_owned(), (cursor, at));
        }
        let advanced = known && before.is_none_or(|before| version > before);
        Some(json!({"deviceId": device, "lastSeenVersion": cursor, "advanced": advanced,
            "serverVersion": state.head, "oldestRetainedVersion": state.horizon + 1}))
    }
}

fn change(version: i64, entry: &Entry) -> Value {
    let mut stamp = revision_json(&entry.op.revision);
    stamp["deviceId"] = json!(entry.op.device_id);
    let op = if entry.op.delete { "delete" } else { "put" };
    let mut change = json!({"serverVersion": version, "tableName": entry.op.table,
        "pk": entry.op.pk, "op": op, "applied": entry.applied, "stamp": stamp});
    if entry.payload().is_some() {
        change["payload"] = entry.payload_value();
    }
    if let Some(overwrote) = &entry.overwrote {
        change["overwrote"] = json!(overwrote);
    }
    change
}

fn item(version: i64, entry: &Entry) -> Value {
    let mut item = json!({"kind": "row", "tableName": entry.op.table, "pk": entry.op.pk,
        "revision": revision_json(&entry.op.revision), "serverVersion": version});
    if entry.op.delete {
        item["kind"] = json!("tombstone");
        item["serverDeletedAt"] = json!(entry.at);
    } else {
        item["payload"] = entry.payload_value();
    }
    item
}
