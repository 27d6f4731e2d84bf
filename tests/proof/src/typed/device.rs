//! A device: what it has seen of its workspace, and what it has sent.

use std::collections::BTreeMap;

use serde_json::Value;
use sync_ext_model::{Fields, Key, Revision, Workspace};

pub struct Device {
    pub name: String,
    pub workspace: String,
    pub cursor: i64,
    pub seen: BTreeMap<Key, Seen>,
    /// All ops.
    pub sent: Vec<Value>,
}

/// A record at the time of the last pull.
pub struct Seen {
    pub revision: Revision,
    pub fields: Fields,
    /// The op whose entry was the newest.
    pub newest: String,
}

impl Device {
    pub fn new(number: usize, workspace: &str) -> Device {
        Device {
            name: format!("device {number}"),
            workspace: workspace.to_owned(),
            cursor: 0,
            seen: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    /// It has pulled, and knows all that its workspace has.
    pub fn see(&mut self, state: &Workspace) {
        self.cursor = state.head;
        let seen = state.records.iter().map(|(key, record)| {
            let newest = state.newest_id(record).to_owned();
            let (revision, fields) = (record.revision.clone(), state.fields(record));
            (key.clone(), Seen { revision, fields, newest })
        });
        self.seen = seen.collect();
    }
}

impl Seen {
    /// The highest that is known of the record.
    pub fn clock(&self) -> i64 {
        self.fields.values().map(|by| by.clock).fold(self.revision.clock, i64::max)
    }
}
