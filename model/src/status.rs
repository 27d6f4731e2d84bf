//! What operators ask: the status of workspaces, and the history of a record.

use serde_json::{Value, json};

use crate::gc::Cutoffs;
use crate::members::Role;
use crate::patch::Fields;
use crate::refusal::Outcome;
use crate::server::{Device, Entry, Key, Record, Server, Workspace, sees};
use crate::views::{decided_by, lost_by};

/// Stands for whichever of several devices holds GC back.
pub const ANY_DEVICE: &str = "one of those";

impl Server {
    /// Without sizes and ages.
    pub fn status(&self, user: Option<&str>, workspace: Option<&str>, cutoffs: Cutoffs) -> Outcome {
        if let Some(name) = workspace {
            self.allow(user, name, Role::Owner)?;
        }
        let is_shown = |name: &str| {
            workspace.is_none_or(|asked| asked == name)
                && self.allow(user, name, Role::Owner).is_ok()
        };
        let shown = self.workspaces.iter().filter(|(name, _)| is_shown(name));
        let workspaces: Vec<Value> =
            shown.map(|(name, state)| state.status(name, cutoffs)).collect();
        Ok(json!({"counters": null, "workspaces": workspaces}))
    }

    /// Without times.
    pub fn explain(
        &self,
        user: Option<&str>,
        workspace: &str,
        key: &Key,
        cutoffs: Cutoffs,
    ) -> Outcome {
        self.allow(user, workspace, Role::Owner)?;
        let state = self.workspaces.get(workspace);
        let found = state.and_then(|state| Some((state, state.records.get(key)?)));
        let (table, pk) = key;
        let mut reply = json!({"workspaceId": workspace, "tableName": table, "pk": pk,
            "state": "unknown", "winner": null, "opsLogged": 0, "ops": [], "devices": [],
            "purge": null});
        if let Some((state, record)) = found.filter(|(_, record)| sees(user, &record.owner)) {
            state.explain(key, record, cutoffs, &mut reply);
        }
        Ok(reply)
    }
}

type Known<'a> = (&'a (String, String), &'a Device);

fn user_id(user: &str) -> Option<&str> {
    Some(user).filter(|user| !user.is_empty())
}

impl Workspace {
    fn status(&self, name: &str, cutoffs: Cutoffs) -> Value {
        let live = self.records.values().filter(|record| !record.is_deleted).count();
        let dead = self.records.len() - live;
        let is_tombstone = |record: &&Record| record.is_deleted && self.winner(record).is_some();
        let tombstones = self.records.values().filter(is_tombstone).count();
        let holding = self
            .devices
            .values()
            .filter(|device| self.is_active(device, cutoffs) && device.cursor < self.head);
        let pinned_at = holding.map(|device| device.cursor).min();
        let device = |((id, user), device): Known| {
            let active = self.is_active(device, cutoffs);
            json!({"deviceId": id, "userId": user_id(user),
                "lastSeenVersion": device.cursor, "lag": self.head - device.cursor,
                "active": active, "pinsGc": active && Some(device.cursor) == pinned_at})
        };
        json!({"workspaceId": name, "serverVersion": self.head,
            "oldestRetainedVersion": self.horizon + 1, "gcThrough": self.gc_through,
            "liveRecords": live, "tombstones": tombstones, "graves": dead - tombstones,
            "logRows": self.log.len(), "garbageWaiting": self.log.len() - live,
            "pinnedAt": pinned_at, "pinnedBy": pinned_at.map(|_| ANY_DEVICE),
            "devices": self.devices.iter().map(device).collect::<Vec<_>>()})
    }

    fn explain(&self, key: &Key, record: &Record, cutoffs: Cutoffs, reply: &mut Value) {
        let entry = self.winner(record);
        reply["state"] = json!(match (record.is_deleted, entry) {
            (false, _) => "live",
            (true, Some(_)) => "tombstone",
            (true, None) => "grave",
        });
        reply["winner"] = json!({"serverVersion": record.version,
            "revision": record.revision.json(), "owner": record.owner,
            "scope": record.scope,
            "fields": entry.and_then(|entry| entry.merged.as_ref()).map(|it| it.fields())});
        let entries: Vec<(i64, &Entry)> = self
            .log
            .iter()
            .filter(|(_, entry)| entry.op.key() == *key)
            .map(|(version, entry)| (*version, entry))
            .collect();
        reply["opsLogged"] = json!(entries.len());
        let fields = self.fields(record);
        let explain = |of: &_| explained(&entries, *of, record, &fields);
        reply["ops"] = entries.iter().map(explain).collect();
        let device = |((id, user), device): Known| {
            json!({"deviceId": id, "userId": user_id(user), "lastSeenVersion": device.cursor,
                "hasSeenWinner": device.cursor >= record.version})
        };
        reply["devices"] = self.devices.iter().map(device).collect();
        if let Some(entry) = entry.filter(|_| record.is_deleted) {
            let holds = |device: &Device| {
                self.is_active(device, cutoffs) && device.cursor <= record.version
            };
            let mut held_by: Vec<(i64, &str)> = self
                .devices
                .iter()
                .filter(|(_, device)| holds(device))
                .map(|((id, _), device)| (device.cursor, &**id))
                .collect();
            held_by.sort_unstable();
            let held_by: Vec<&str> = held_by.into_iter().map(|(_, id)| id).collect();
            reply["purge"] = json!({"isDue": entry.at <= cutoffs.entries,
                "isHead": record.version == self.head, "heldBy": held_by});
        }
    }
}

/// What one op did, of those of a record that are left.
fn explained(
    entries: &[(i64, &Entry)],
    (version, entry): (i64, &Entry),
    record: &Record,
    fields: &Fields,
) -> Value {
    let op = &entry.op;
    let held = fields.iter().filter(|(_, by)| **by == op.revision);
    let held: Vec<&String> = held.map(|(name, _)| name).collect();
    let applied = entries.iter().filter(|(_, entry)| entry.applied);
    let before = applied.map(|(version, _)| *version).filter(|it| *it < version).max();
    let of = |version: i64| {
        let entry = entries.iter().find(|(known, _)| *known == version);
        // What decided was the register, of a patch its base.
        entry.map(|(_, entry)| entry.op.base.as_ref().unwrap_or(&entry.op.revision))
    };
    let (outcome, against, other) = match entry.applied {
        true => ("superseded", entry.supersedes, entry.supersedes.and_then(of)),
        false => {
            let other = before.and_then(of).unwrap_or(&record.revision);
            ("lost", before.or(Some(record.version)), Some(other))
        }
    };
    let is_register = entry.applied && op.revision == record.revision;
    let outcome = if is_register || !held.is_empty() { "winner" } else { outcome };
    let decided_by = match &op.base {
        None => other.and_then(|other| decided_by(&op.revision, other)),
        Some(_) if entry.applied => None,
        Some(base) => Some(lost_by(base, record)),
    };
    let superseded_by = entries.iter().find(|(_, entry)| entry.supersedes == Some(version));
    json!({"serverVersion": version, "op": op.word(), "outcome": outcome,
        "against": against,
        "decidedBy": decided_by,
        "fields": Some(held).filter(|held| !held.is_empty()),
        "overwrote": entry.overwrote,
        "scope": entry.scope,
        "leftScope": entry.left_scope,
        "supersededBy": superseded_by.map(|(version, _)| version),
        "stamp": op.stamp(),
        "payload": entry.written(),
        "payloadBytes": op.payload.as_ref().map(String::len)})
}
