//! What the contract says of a server, in plain maps: it foretells every reply
//! and every row. Times are seconds of the simulation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};
use sync_ext_cluster::device::Revision;

use super::op::{Item, Op, Spelling, revision_json};
use super::reads::PAGE_BYTES;

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub op: Op,
    /// How its payload was spelled when it was logged.
    pub spelling: Spelling,
    pub applied: bool,
    pub supersedes: Option<i64>,
    pub created: bool,
    /// The op that it replaced unseen.
    pub overwrote: Option<String>,
    pub at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub version: i64,
    pub revision: Revision,
    pub deleted: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Workspace {
    pub head: i64,
    pub horizon: i64,
    pub gc_through: i64,
    pub log: BTreeMap<i64, Entry>,
    pub by_id: HashMap<String, i64>,
    pub records: BTreeMap<(String, String), Record>,
    /// Cursor and heartbeat by device.
    pub devices: BTreeMap<String, (i64, i64)>,
    /// How often its row was changed: what a transaction above READ COMMITTED
    /// must not find changed since its snapshot.
    pub changes: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub workspaces: BTreeMap<String, Workspace>,
    pub tables: BTreeSet<&'static str>,
}

/// Who is told what about an op that is in the log.
enum Fate {
    Refused(&'static str),
    Stored { version: i64, replayed: bool },
}

/// The payloads of winners that a reply has told, and their bytes.
#[derive(Default)]
struct Winners {
    told: BTreeSet<(String, String)>,
    bytes: usize,
}

impl Server {
    /// Does a push of these items wait for, and take, the workspace's lock?
    pub fn takes_lock(&self, workspace: &str, items: &[Item]) -> bool {
        let (ops, _) = distinct(items);
        match self.workspaces.contains_key(workspace) {
            true => !ops.is_empty(),
            false => ops.iter().any(|(op, _)| self.tables.contains(op.table)),
        }
    }

    /// Stores a batch; gives the reply.
    pub fn push(&mut self, workspace: &str, items: &[Item], at: i64) -> Value {
        if !self.takes_lock(workspace, items) && !self.workspaces.contains_key(workspace) {
            return self.refuse_all(items);
        }
        let tables = self.tables.clone();
        let state = self.workspaces.entry(workspace.to_owned()).or_default();
        let (ops, places) = distinct(items);
        let before = state.head;
        let mut fates = Vec::new();
        for (op, spelling) in ops {
            fates.push(match state.by_id.get(&op.revision.op_id) {
                Some(version) if state.log[version].op == *op => {
                    Fate::Stored { version: *version, replayed: true }
                }
                Some(_) => Fate::Refused("CONFLICT"),
                None if !tables.contains(op.table) => Fate::Refused("VALIDATION_ERROR"),
                None => Fate::Stored { version: state.append(op, spelling, at), replayed: false },
            });
        }
        if state.head > before {
            state.changes += 1;
        }
        let mut winners = Winners::default();
        let results: Vec<Value> = items
            .iter()
            .zip(places)
            .map(|(item, place)| {
                let fate = match place {
                    Place::Refused(code) => &Fate::Refused(code),
                    Place::Op(place) => &fates[place],
                };
                state.result(item.op_id(), fate, before, &mut winners)
            })
            .collect();
        json!({"results": results, "serverVersion": state.head})
    }

    fn refuse_all(&self, items: &[Item]) -> Value {
        let (_, places) = distinct(items);
        let results: Vec<Value> = items
            .iter()
            .zip(places)
            .map(|(item, place)| match place {
                Place::Refused(code) => refused(item.op_id(), code),
                Place::Op(_) => refused(item.op_id(), "VALIDATION_ERROR"),
            })
            .collect();
        json!({"results": results, "serverVersion": 0})
    }
}

enum Place {
    Refused(&'static str),
    Op(usize),
}

/// The distinct ops of a batch in order of first occurrence, and where each
/// item went.
fn distinct(items: &[Item]) -> (Vec<(&Op, Spelling)>, Vec<Place>) {
    let mut ops: Vec<(&Op, Spelling)> = Vec::new();
    let mut places = Vec::new();
    for item in items {
        places.push(match item {
            Item::Malformed { .. } => Place::Refused("VALIDATION_ERROR"),
            Item::Op(op, spelling) => {
                let id = &op.revision.op_id;
                let twin = |other: &&Item| matches!(other, Item::Op(other, _) if other.revision.op_id == *id && other != op);
                if items.iter().any(|other| twin(&other)) {
                    Place::Refused("CONFLICT")
                } else if let Some(first) =
                    ops.iter().position(|(known, _)| known.revision.op_id == *id)
                {
                    Place::Op(first)
                } else {
                    ops.push((op, *spelling));
                    Place::Op(ops.len() - 1)
                }
            }
        });
    }
    (ops, places)
}

fn refused(op_id: Option<&str>, code: &str) -> Value {
    json!({"opId": op_id, "success": false, "errorCode": code})
}

impl Workspace {
    fn append(&mut self, op: &Op, spelling: Spelling, at: i64) -> i64 {
        self.head += 1;
        let version = self.head;
        let winner = self.records.get(&op.key());
        let applied = winner.is_none_or(|winner| op.revision > winner.revision);
        let replaced = winner.filter(|_| applied);
        let supersedes = replaced.map(|winner| winner.version);
        let created = applied && !op.delete && replaced.is_none_or(|winner| winner.deleted);
        let newest = replaced.map(|winner| winner.revision.op_id.clone());
        let overwrote = newest.filter(|it| op.parent.as_ref().is_some_and(|seen| seen != it));
        if applied {
            let record = Record { version, revision: op.revision.clone(), deleted: op.delete };
            self.records.insert(op.key(), record);
        }
        self.by_id.insert(op.revision.op_id.clone(), version);
        let op = op.clone();
        self.log
            .insert(version, Entry { op, spelling, applied, supersedes, created, overwrote, at });
        version
    }

    fn result(
        &self,
        op_id: Option<&str>,
        fate: &Fate,
        before: i64,
        winners: &mut Winners,
    ) -> Value {
        let (version, replayed) = match fate {
            Fate::Refused(code) => return refused(op_id, code),
            Fate::Stored { version, replayed } => (*version, *replayed),
        };
        let Entry { op, applied, created, overwrote, .. } = &self.log[&version];
        let key = op.key();
        let record = &self.records[&key];
        let applied = if replayed { record.version == version } else { *applied };
        let mut result =
            json!({"opId": op_id, "success": true, "serverVersion": version, "applied": applied});
        if replayed {
            result["replayed"] = json!(true);
        } else if *created {
            result["created"] = json!(true);
        }
        if let Some(overwrote) = overwrote {
            result["overwrote"] = json!(overwrote);
        }
        if applied {
            return result;
        }
        let mut winner = json!({"serverVersion": record.version,
                                "revision": revision_json(&record.revision)});
        match (record.deleted, self.log.get(&record.version)) {
            (true, entry) => {
                winner["kind"] = json!("delete");
                if let Some(entry) = entry {
                    // The clock of this very call is nobody's to foretell.
                    let now = record.version > before;
                    winner["serverDeletedAt"] = if now { json!("now") } else { json!(entry.at) };
                }
            }
            (false, entry) => {
                winner["kind"] = json!("put");
                let size = entry.and_then(Entry::payload).map_or(0, |payload| payload.len());
                if winners.told.insert(key) && winners.bytes + size < PAGE_BYTES {
                    winners.bytes += size;
                    winner["payload"] = entry.map_or(Value::Null, Entry::payload_value);
                }
            }
        }
        result["winner"] = winner;
        result
    }

    fn forget(&mut self, version: i64) -> bool {
        let Some(entry) = self.log.remove(&version) else { return false };
        self.by_id.remove(&entry.op.revision.op_id);
        true
    }
}

impl Entry {
    pub fn payload(&self) -> Option<String> {
        self.op.payload(self.spelling)
    }

    pub fn payload_value(&self) -> Value {
        self.payload().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

/// What GC takes for old. Times up to and including the given one are.
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    pub entries: i64,
    pub heartbeats: i64,
    pub forgotten: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcOutcome {
    pub scanned: u64,
    pub changes: u64,
    pub tombstones: u64,
    pub devices: u64,
    pub has_more: bool,
}

impl Workspace {
    pub fn is_active(&self, device: &str, cutoffs: Cutoffs) -> bool {
        self.devices
            .get(device)
            .is_some_and(|(cursor, at)| *at > cutoffs.heartbeats && *cursor >= self.horizon)
    }

    /// The last version that the head and active devices let GC read.
    fn ceiling(&self, cutoffs: Cutoffs) -> i64 {
        let active = self.devices.keys().filter(|device| self.is_active(device, cutoffs));
        active.map(|device| self.devices[device].0).fold(self.head, i64::min) - 1
    }

    /// Would a GC over all workspaces lock this one?
    pub fn has_work(&self, cutoffs: Cutoffs) -> bool {
        let first = self.log.range(self.gc_through + 1..).next();
        self.devices.values().any(|(_, at)| *at <= cutoffs.forgotten)
            || self.ceiling(cutoffs) > self.gc_through
                && first.is_none_or(|(_, entry)| entry.at <= cutoffs.entries)
    }

    pub fn gc(&mut self, cutoffs: Cutoffs, batch_size: u64) -> GcOutcome {
        let mut outcome = GcOutcome::default();
        let before = (self.gc_through, self.horizon);
        let ceiling = self.ceiling(cutoffs);
        let registered = self.devices.len();
        self.devices.retain(|_, (_, at)| *at > cutoffs.forgotten);
        outcome.devices = (registered - self.devices.len()) as u64;
        let unread: Vec<i64> = self
            .log
            .range(self.gc_through + 1..)
            .map(|(version, _)| *version)
            .take_while(|version| *version <= ceiling)
            .collect();
        let mut ended = false;
        for version in unread {
            let Some(entry) = self.log.get(&version).cloned() else { continue };
            if entry.at > cutoffs.entries {
                ended = true;
                break;
            }
            if outcome.scanned == batch_size {
                outcome.has_more = true;
                ended = true;
                break;
            }
            outcome.scanned += 1;
            if let Some(superseded) = entry.supersedes {
                outcome.changes += u64::from(self.forget(superseded));
            }
            if !entry.applied {
                outcome.changes += u64::from(self.forget(version));
            } else if entry.op.delete && self.records[&entry.op.key()].version == version {
                self.forget(version);
                outcome.tombstones += 1;
                self.horizon = version;
            }
            self.gc_through = version;
        }
        if !ended {
            self.gc_through = self.gc_through.max(ceiling);
        }
        self.changes += u64::from(before != (self.gc_through, self.horizon));
        outcome
    }
}

impl GcOutcome {
    pub fn join(&mut self, other: GcOutcome) {
        self.scanned += other.scanned;
        self.changes += other.changes;
        self.tombstones += other.tombstones;
        self.devices += other.devices;
        self.has_more |= other.has_more;
    }
}
