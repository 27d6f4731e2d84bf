//! The op log as devices write it that patch: a later put of a file becomes a patch of
//! the fields that changed. And the state that its ops must end in, folded from them
//! alone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sync_ext_harness::device::Revision;
use sync_ext_harness::state::{self, Line};

use crate::oplog::Push;

/// sha256 of the final state, see [`digest`].
pub const STATE_SHA256: &str = "ece2f81c812d66e85d846f9534e996514c088c95730d510d9a1ed1b086e717a1";

pub type Fields = BTreeMap<String, Value>;
type Key = (String, String);

/// An op of the log, or a patch that was made of one.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Op {
    table_name: String,
    pk: String,
    operation: String,
    #[serde(default)]
    payload: Option<Fields>,
    #[serde(default)]
    base: Option<Revision>,
    stamp: Revision,
}

/// What devices that patch know of a file: the put that is edited, and its payload
/// after the edits since.
struct Known {
    base: Revision,
    payload: Fields,
}

/// Rewrites the pushes; returns the number of patches.
pub fn patch(pushes: &mut [Push]) -> Result<usize> {
    let mut files: BTreeMap<String, Known> = BTreeMap::new();
    let mut patches = 0;
    for pending in pushes.iter_mut().flat_map(|push| &mut push.ops) {
        let op: Op = serde_json::from_str(&pending.json)?;
        if op.table_name != "files" {
            continue;
        }
        if let Some((base, fields)) = edit(&mut files, op) {
            let mut json: Map<String, Value> = serde_json::from_str(&pending.json)?;
            json.insert("operation".into(), "patch".into());
            json.insert("payload".into(), json!(fields));
            let Revision { clock, hlc, op_id } = base;
            json.insert("base".into(), json!({"clock": clock, "hlc": hlc, "opId": op_id}));
            pending.json = Value::Object(json).to_string();
            patches += 1;
        }
    }
    Ok(patches)
}

/// The patch to send instead of a put, if there is one: its base and fields.
fn edit(files: &mut BTreeMap<String, Known>, op: Op) -> Option<(Revision, Fields)> {
    let Op { pk, payload, stamp, .. } = op;
    let Some(payload) = payload.filter(|_| op.operation == "put") else {
        files.remove(&pk);
        return None;
    };
    match files.entry(pk) {
        Entry::Vacant(file) => {
            file.insert(Known { base: stamp, payload });
            None
        }
        Entry::Occupied(mut file) => {
            let known = file.get_mut();
            if stamp <= known.base {
                return None;
            }
            let mut changed = payload.clone();
            changed.retain(|name, value| known.payload.get(name) != Some(value));
            known.payload = payload;
            (!changed.is_empty()).then(|| (known.base.clone(), changed))
        }
    }
}

/// A record of the final state.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// Of the put or delete.
    pub register: Revision,
    /// `None` if it is deleted.
    pub payload: Option<Fields>,
    /// The opId of the patch that holds a field.
    pub fields: BTreeMap<String, String>,
}

pub type State = BTreeMap<Key, Record>;

/// A digest as of a state without patches, with payload and fields as compact JSON in
/// sorted order in the place of "put".
pub fn digest(state: &State) -> Result<String> {
    let mut lines = Vec::new();
    for ((table, pk), Record { register, payload, fields }) in state {
        let Revision { clock, hlc, op_id } = register.clone();
        let record = match payload {
            Some(payload) => serde_json::to_string(&(payload, fields))?,
            None => "delete".to_owned(),
        };
        lines.push(Line(table.clone(), pk.clone(), clock, hlc, op_id, record));
    }
    state::digest(lines)
}

/// The state by the rule for sets of ops, in any order: the highest put or delete, and
/// in each field the highest patch of it.
pub fn fold(pushes: &[Push]) -> Result<State> {
    let mut state: BTreeMap<Key, Op> = BTreeMap::new();
    let mut patches = Vec::new();
    for pending in pushes.iter().flat_map(|push| &push.ops) {
        let op: Op = serde_json::from_str(&pending.json)?;
        if op.operation == "patch" {
            patches.push(op);
            continue;
        }
        match state.entry((op.table_name.clone(), op.pk.clone())) {
            Entry::Occupied(known) if known.get().stamp >= op.stamp => {}
            Entry::Occupied(mut known) => drop(known.insert(op)),
            Entry::Vacant(record) => drop(record.insert(op)),
        }
    }
    let mut state: State = state
        .into_iter()
        .map(|(key, op)| {
            let payload = op.payload.filter(|_| op.operation == "put");
            (key, Record { register: op.stamp, payload, fields: BTreeMap::new() })
        })
        .collect();
    patches.sort_by(|a, b| a.stamp.cmp(&b.stamp));
    for patch in patches {
        let record = state.get_mut(&(patch.table_name, patch.pk)).context("a base is missing")?;
        let Some(payload) = record.payload.as_mut() else { continue };
        if patch.base.as_ref() == Some(&record.register) {
            for (name, value) in patch.payload.into_iter().flatten() {
                record.fields.insert(name.clone(), patch.stamp.op_id.clone());
                payload.insert(name, value);
            }
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oplog;

    #[test]
    fn the_variant_ends_in_the_known_state_in_any_order() {
        let mut pushes = oplog::read().unwrap();
        let ops: usize = pushes.iter().map(|push| push.ops.len()).sum();
        assert_eq!((ops, patch(&mut pushes).unwrap()), (14_032, 9_854));
        assert_eq!(digest(&fold(&pushes).unwrap()).unwrap(), STATE_SHA256);
        oplog::shuffle_neighbours(&mut pushes, 1);
        pushes.reverse();
        assert_eq!(digest(&fold(&pushes).unwrap()).unwrap(), STATE_SHA256);
    }

    #[test]
    fn without_patches_a_fold_is_the_state_under_lww() {
        let lines = fold(&oplog::read().unwrap()).unwrap().into_iter().map(|(key, record)| {
            let Revision { clock, hlc, op_id } = record.register;
            let operation = if record.payload.is_some() { "put" } else { "delete" };
            Line(key.0, key.1, clock, hlc, op_id, operation.to_owned())
        });
        assert_eq!(state::digest(lines).unwrap(), oplog::STATE_SHA256);
    }
}
