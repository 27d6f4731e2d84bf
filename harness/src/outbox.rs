//! Ops that wait in a device's outbox, and records as its user sees them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::device::{Revision, Synced};

/// An op in the outbox.
#[derive(Clone, Debug)]
pub struct Pending {
    pub json: String,
    pub table: String,
    pub pk: String,
    pub revision: Revision,
    pub edit: Edit,
    /// Its condition, if any, is about the whole record.
    pub is_conditional: bool,
    /// The version that a push reply gave: when the cursor has passed it, synced state
    /// must hold the op or a later one.
    pub told: Option<i64>,
    /// Its base was missing: it waits for the end of the next complete pull or snapshot.
    pub waits: bool,
}

#[derive(Clone, Debug)]
pub enum Edit {
    Put(Map<String, Value>),
    Delete,
    Patch { base: Revision, fields: Map<String, Value> },
}

impl Pending {
    /// Of a well-formed op.
    pub fn of(json: String) -> Result<Pending> {
        let op: Value = serde_json::from_str(&json)?;
        let text = |key: &str| op[key].as_str().map(str::to_owned).context("a text");
        let revision = |of: &Value| serde_json::from_value::<Revision>(of.clone());
        let payload = || op["payload"].as_object().cloned().context("a payload");
        let edit = match &*text("operation")? {
            "patch" => Edit::Patch { base: revision(&op["base"])?, fields: payload()? },
            "delete" => Edit::Delete,
            _ => Edit::Put(payload()?),
        };
        Ok(Pending {
            table: text("tableName")?,
            pk: text("pk")?,
            revision: revision(&op["stamp"])?,
            edit,
            is_conditional: op["expected"].is_string(),
            told: None,
            waits: false,
            json,
        })
    }

    pub fn is_patch(&self) -> bool {
        matches!(self.edit, Edit::Patch { .. })
    }

    /// Does synced state hold the op, or what replaced it?
    pub fn is_held(&self, synced: Option<&Synced>) -> bool {
        let Some(Synced { revision: register, fields: held, .. }) = synced else { return false };
        match &self.edit {
            Edit::Put(_) | Edit::Delete => *register >= self.revision,
            Edit::Patch { base, fields } => {
                let is_held = |name| held.get(name).is_some_and(|by| *by >= self.revision);
                register > base || register == base && fields.keys().all(is_held)
            }
        }
    }
}

/// A record as its user sees it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `None` where there is none.
    pub register: Option<Revision>,
    pub deleted: bool,
    pub payload: Map<String, Value>,
    pub fields: BTreeMap<String, Revision>,
    /// The op of the newest entry.
    pub newest: Option<String>,
}

impl Seen {
    /// Synced state, and then the outbox in the order of revisions.
    pub fn of<'a>(synced: Option<&Synced>, outbox: impl Iterator<Item = &'a Pending>) -> Seen {
        let mut seen = synced.map_or_else(Seen::default, |synced| Seen {
            register: Some(synced.revision.clone()),
            deleted: synced.deleted,
            payload: synced
                .payload
                .as_ref()
                .and_then(|payload| serde_json::from_str(payload).ok())
                .unwrap_or_default(),
            fields: synced.fields.clone(),
            // A mark has none: its record is not known.
            newest: Some(synced.newest.clone()).filter(|newest| !newest.is_empty()),
        });
        let mut pending: Vec<&Pending> = outbox.collect();
        pending.sort_by_key(|op| &op.revision);
        pending.into_iter().for_each(|op| seen.add(op));
        seen
    }

    pub fn is_live(&self) -> bool {
        self.register.is_some() && !self.deleted
    }

    fn add(&mut self, op: &Pending) {
        let payload = match &op.edit {
            Edit::Patch { base, fields } => {
                if self.register.as_ref() == Some(base) && !self.deleted {
                    self.merge(op, fields);
                }
                return;
            }
            Edit::Put(payload) => payload.clone(),
            Edit::Delete => Map::new(),
        };
        if self.register.as_ref().is_none_or(|register| op.revision > *register) {
            *self = Seen {
                register: Some(op.revision.clone()),
                deleted: matches!(op.edit, Edit::Delete),
                payload,
                fields: BTreeMap::new(),
                newest: Some(op.revision.op_id.clone()),
            };
        }
    }

    fn merge(&mut self, op: &Pending, fields: &Map<String, Value>) {
        for (name, value) in fields {
            if self.fields.get(name).is_none_or(|by| *by < op.revision) {
                self.payload.insert(name.clone(), value.clone());
                self.fields.insert(name.clone(), op.revision.clone());
                self.newest = Some(op.revision.op_id.clone());
            }
        }
    }
}
