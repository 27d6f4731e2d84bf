//! What a server holds.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::gc::Leftover;
use crate::json::is_same;
use crate::members::Role;
use crate::op::{Op, Revision};
use crate::owners::filled;
use crate::patch::Merged;

/// A record's table and pk.
pub type Key = (String, String);

/// Whose a record is; `None` is everybody's.
pub type Owner = Option<String>;

#[derive(Clone, Debug)]
pub struct Settings {
    pub max_ops_per_push: usize,
    pub max_payload_bytes: usize,
    pub max_payload_depth: usize,
    pub max_page_limit: usize,
    pub max_page_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_ops_per_push: 1000,
            max_payload_bytes: 256 * 1024,
            max_payload_depth: 100,
            max_page_limit: 1000,
            max_page_bytes: 8 * 1024 * 1024,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub settings: Settings,
    /// The app keeps the members, behind a function.
    pub has_members_elsewhere: bool,
    pub tables: BTreeMap<String, Table>,
    pub workspaces: BTreeMap<String, Workspace>,
    /// By workspace and user.
    pub members: BTreeMap<(String, String), Role>,
    /// How many workspaces were created.
    pub created: u64,
    /// What remains of dropped workspaces, by their numbers.
    pub dropped: BTreeMap<u64, Leftover>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub pk_field: String,
    pub owner_field: Option<String>,
    /// Names the scope of a record.
    pub scope_field: Option<String>,
    /// Are patches allowed?
    pub patches: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// Its place in the order of creation.
    pub number: u64,
    pub head: i64,
    pub horizon: i64,
    pub gc_through: i64,
    /// How often what scopes mean in it was changed.
    pub scope_epoch: i64,
    pub log: BTreeMap<i64, Entry>,
    pub(crate) by_id: HashMap<String, i64>,
    pub records: BTreeMap<Key, Record>,
    /// By device and user, which is empty for a trusted caller.
    pub devices: BTreeMap<(String, String), Device>,
    /// How often its row was changed: what a transaction above READ COMMITTED
    /// must not find changed since its snapshot.
    pub changes: u64,
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// With the payload as stored; of a patch, as pushed.
    pub op: Op,
    /// What its author sent, if the row of an attached table made something else of it.
    pub pushed: Option<String>,
    /// What an applied patch made of the record, unless an op of the same call came later.
    pub merged: Option<Merged>,
    /// The fields that an applied patch did not win.
    pub lost: Vec<String>,
    /// The field that the server has added to the payload.
    pub filled: Option<String>,
    pub owner: Owner,
    /// The record's after it, and the one that the record left with it.
    pub scope: Option<String>,
    pub left_scope: Option<String>,
    pub applied: bool,
    pub supersedes: Option<i64>,
    pub created: bool,
    /// The op that it replaced unseen.
    pub overwrote: Option<String>,
    pub at: i64,
}

#[derive(Clone, Debug)]
pub struct Record {
    /// Of the newest entry, that of the last applied op.
    pub version: i64,
    /// Of the register, the put or delete of the highest.
    pub revision: Revision,
    pub is_deleted: bool,
    pub owner: Owner,
    pub scope: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub cursor: i64,
    /// Its heartbeat.
    pub heard_at: i64,
}

/// May a user see what is this owner's? A trusted caller sees all.
pub(crate) fn sees(user: Option<&str>, owner: &Owner) -> bool {
    match (user, owner) {
        (Some(user), Some(owner)) => user == owner,
        _ => true,
    }
}

impl Server {
    pub(crate) fn new_workspace(&mut self) -> Workspace {
        self.created += 1;
        Workspace { number: self.created, ..Workspace::default() }
    }

    /// The head of a workspace, 0 of an unknown one.
    pub fn head(&self, workspace: &str) -> i64 {
        self.workspaces.get(workspace).map_or(0, |state| state.head)
    }
}

impl Workspace {
    pub(crate) fn forget(&mut self, version: i64) -> bool {
        let Some(entry) = self.log.remove(&version) else { return false };
        self.by_id.remove(&entry.op.revision.op_id);
        true
    }

    /// A record's newest entry, unless it is purged.
    pub fn winner(&self, record: &Record) -> Option<&Entry> {
        self.log.get(&record.version)
    }
}

impl Entry {
    /// Is it this op, as it was sent or with what was added?
    pub(crate) fn is_of(&self, op: &Op) -> bool {
        let is_stored = |payload: &str| {
            let stored = self.pushed.as_ref().filter(|_| self.op.base.is_none());
            let stored = stored.or(self.op.payload.as_ref());
            stored.is_some_and(|stored| is_same(payload, stored))
        };
        let payload = match (&op.payload, &self.filled, &self.owner) {
            (None, ..) => return self.op.is_like(op) && self.op.payload.is_none(),
            (Some(payload), Some(field), Some(owner)) => filled(payload, field, owner),
            (Some(payload), ..) => payload.clone(),
        };
        self.op.is_like(op) && is_stored(&payload)
    }

    /// The whole record after it.
    pub fn record(&self) -> Option<&str> {
        match self.op.base {
            Some(_) => self.merged.as_ref().map(|merged| &*merged.payload),
            None => self.op.payload.as_deref(),
        }
    }

    pub(crate) fn payload(&self) -> Value {
        Value::from(self.record())
    }

    /// What the op itself wrote.
    pub(crate) fn written(&self) -> Value {
        Value::from(self.op.payload.clone())
    }
}
