//! What the contract says of what operators read: status, conflicts, and what
//! became of a record.

use serde_json::{Value, json};

use super::model::{Device, Entry, Outcome, Record, Server, Workspace, sees};
use super::op::Op;
use super::step::{Name, Role};

impl Server {
    /// But for sizes, ages and which of several devices it is that holds GC back.
    pub fn status(&self, user: Option<Name>, workspace: Option<Name>) -> Outcome {
        if let Some(name) = workspace {
            self.allow(user, name, Role::Owner)?;
        }
        let is_asked = |name: Name| workspace.is_none_or(|asked| asked == name);
        let governed = self
            .workspaces
            .iter()
            .filter(|(name, _)| is_asked(name) && self.allow(user, name, Role::Owner).is_ok());
        let workspaces: Vec<Value> = governed.map(|(name, state)| state.status(name)).collect();
        Ok(json!({"counters": null, "workspaces": workspaces}))
    }

    /// But for times.
    pub fn explain(&self, user: Option<Name>, workspace: Name, key: &(String, String)) -> Outcome {
        self.allow(user, workspace, Role::Owner)?;
        let state = self.workspaces.get(workspace);
        let found = state.and_then(|state| Some((state, state.records.get(key)?)));
        let told = found.filter(|(_, record)| sees(user, &record.owner));
        let (table, pk) = key;
        let mut reply = json!({"workspaceId": workspace, "tableName": table, "pk": pk,
            "state": "unknown", "winner": null, "opsLogged": 0, "ops": [], "devices": [],
            "purge": null});
        if let Some((state, record)) = told {
            state.explain(key, record, &mut reply);
        }
        Ok(reply)
    }

    /// The rows of the view, as arrays.
    pub fn conflicts(&self, user: Option<Name>) -> Vec<Value> {
        let mut rows = Vec::new();
        for (name, state) in &self.workspaces {
            if self.allow(user, name, Role::Viewer).is_err() {
                continue;
            }
            for (version, by) in &state.log {
                // What lost itself, or what it has replaced unseen.
                let at = match (by.applied, &by.overwrote) {
                    (false, _) => Some(*version),
                    (true, Some(_)) => by.supersedes,
                    (true, None) => None,
                };
                let Some((at, entry)) = at.and_then(|at| Some((at, state.log.get(&at)?))) else {
                    continue;
                };
                let (op, record) = (&entry.op, &state.records[&entry.op.key()]);
                if !sees(user, &record.owner) {
                    continue;
                }
                let winner = state.log.get(&record.version);
                let payload = winner.filter(|_| !record.deleted).map(Entry::payload_value);
                rows.push(json!([
                    name,
                    op.table,
                    op.pk,
                    decided_by(&op.revision(), &record.revision),
                    by.applied,
                    at,
                    word(op.delete),
                    entry.payload_value(),
                    op.device,
                    revision(op),
                    record.version,
                    word(record.deleted),
                    payload,
                    winner.map(|winner| &winner.op.device),
                    record.revision(),
                ]));
            }
        }
        rows.sort_by_key(|row| (row[0].to_string(), row[5].as_i64()));
        rows
    }
}

impl Workspace {
    fn status(&self, name: Name) -> Value {
        let live = self.records.values().filter(|record| !record.deleted).count();
        let dead = self.records.len() - live;
        let is_tombstone =
            |record: &&Record| record.deleted && self.log.contains_key(&record.version);
        let tombstones = self.records.values().filter(is_tombstone).count();
        let holding =
            self.devices.values().filter(|it| self.is_active(it) && it.cursor < self.head);
        let pinned_at = holding.map(|device| device.cursor).min();
        let devices = self.devices.iter().map(|((id, user), device)| {
            let active = self.is_active(device);
            json!({"deviceId": id, "userId": (!user.is_empty()).then_some(user),
                "lastSeenVersion": device.cursor, "lag": self.head - device.cursor,
                "active": active, "pinsGc": active && Some(device.cursor) == pinned_at})
        });
        json!({"workspaceId": name, "serverVersion": self.head,
            "oldestRetainedVersion": self.horizon + 1, "gcThrough": self.gc_through,
            "liveRecords": live, "tombstones": tombstones, "graves": dead - tombstones,
            "logRows": self.log.len(), "garbageWaiting": self.log.len() - live,
            "pinnedAt": pinned_at, "pinnedBy": pinned_at.map(|_| "one of those"),
            "devices": devices.collect::<Vec<_>>()})
    }

    fn explain(&self, key: &(String, String), record: &Record, reply: &mut Value) {
        let is_kept = self.log.contains_key(&record.version);
        reply["state"] = json!(match (record.deleted, is_kept) {
            (false, _) => "live",
            (true, true) => "tombstone",
            (true, false) => "grave",
        });
        reply["winner"] = json!({"serverVersion": record.version, "revision": record.revision(),
            "owner": record.owner});
        let entries: Vec<(i64, &Entry)> = self
            .log
            .iter()
            .filter(|(_, entry)| entry.op.key() == *key)
            .map(|(version, entry)| (*version, entry))
            .collect();
        let told = |of: &(i64, &Entry)| explained(&entries, *of, record);
        reply["opsLogged"] = json!(entries.len());
        reply["ops"] = entries.iter().map(told).collect();
        let device = |((id, user), device): (&(Name, Name), &Device)| {
            json!({"deviceId": id, "userId": (!user.is_empty()).then_some(user),
                "lastSeenVersion": device.cursor,
                "hasSeenWinner": device.cursor >= record.version})
        };
        reply["devices"] = self.devices.iter().map(device).collect();
        if record.deleted && is_kept {
            let holds = |device: &Device| self.is_active(device) && device.cursor <= record.version;
            let mut held_by: Vec<(i64, Name)> = self
                .devices
                .iter()
                .filter(|(_, device)| holds(device))
                .map(|((id, _), device)| (device.cursor, *id))
                .collect();
            held_by.sort_unstable();
            let held_by: Vec<Name> = held_by.into_iter().map(|(_, id)| id).collect();
            // What the run pushes is years old.
            reply["purge"] = json!({"isDue": true, "isHead": record.version == self.head,
                "heldBy": held_by});
        }
    }
}

/// What one op did, of those of a record that are left.
fn explained(entries: &[(i64, &Entry)], (version, entry): (i64, &Entry), record: &Record) -> Value {
    let op = &entry.op;
    let applied = entries.iter().filter(|(_, entry)| entry.applied);
    let before = applied.map(|(version, _)| *version).filter(|it| *it < version).max();
    let of = |version: i64| entries.iter().find(|(known, _)| *known == version);
    let (outcome, against, other) = match entry.applied {
        true => {
            let outcome = if version == record.version { "winner" } else { "superseded" };
            let other = entry.supersedes.and_then(of).map(|(_, entry)| entry.op.revision());
            (outcome, entry.supersedes, other)
        }
        false => {
            let other = before.and_then(of).map(|(_, entry)| entry.op.revision());
            let other = other.unwrap_or_else(|| record.revision.clone());
            ("lost", before.or(Some(record.version)), Some(other))
        }
    };
    let superseded_by = entries.iter().find(|(_, entry)| entry.supersedes == Some(version));
    json!({"serverVersion": version, "op": word(op.delete), "outcome": outcome,
        "against": against,
        "decidedBy": other.and_then(|other| decided_by(&op.revision(), &other)),
        "overwrote": entry.overwrote,
        "supersededBy": superseded_by.map(|(version, _)| version),
        "stamp": {"clock": op.clock, "hlc": op.hlc, "deviceId": op.device, "opId": op.op_id},
        "payload": entry.payload_value(),
        "payloadBytes": entry.payload.as_ref().map(String::len)})
}

fn word(delete: bool) -> &'static str {
    if delete { "delete" } else { "put" }
}

fn revision(op: &Op) -> Value {
    json!({"clock": op.clock, "hlc": op.hlc, "opId": op.op_id})
}

type Revision = (i64, String, String);

/// Which part of two revisions tells them apart.
fn decided_by(one: &Revision, other: &Revision) -> Option<&'static str> {
    if one.0 != other.0 {
        Some("clock")
    } else if one.1 != other.1 {
        Some("hlc")
    } else {
        (one.2 != other.2).then_some("opId")
    }
}
