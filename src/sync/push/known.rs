//! What the tables know about a batch before any of it is stored.

use uuid::Uuid;

use super::Result;
use crate::rules::merge::Register;
use crate::rules::op::{Op, RecordKey, Version};
use crate::store::RowId;
use crate::store::log::{Entry, Log};
use crate::store::record::Records;
use crate::store::snapshot::Snapshot;
use crate::store::{memory, server};
use crate::sync::caller::Caller;
use crate::wire::owner::same_filled;
use crate::wire::push_request::memory_for;
use crate::wire::value::Digests;

/// The records that a batch touches, each once, in the order of their keys.
pub struct Touched<'b, 'a> {
    pub keys: Vec<&'b RecordKey<'a>>,
    /// For each op of the batch, the place of its record among the keys.
    pub places: Vec<usize>,
}

impl<'b, 'a> Touched<'b, 'a> {
    pub fn by(ops: &'b [Op<'a>]) -> Touched<'b, 'a> {
        let mut keys: Vec<&RecordKey<'a>> = Vec::with_capacity(ops.len());
        let mut places = vec![0; ops.len()];
        for op in in_order(0..ops.len(), |op| &ops[op].key) {
            let key = &ops[op].key;
            if keys.last() != Some(&key) {
                keys.push(key);
            }
            places[op] = keys.len() - 1;
        }
        Touched { keys, places }
    }

    pub fn place_of(&self, table: &str, pk: &str) -> Option<usize> {
        self.keys.binary_search_by(|key| (&*key.table, &*key.pk).cmp(&(table, pk))).ok()
    }
}

/// Whether some things are taken for granted instead of being looked up, to be
/// found out when they are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// An op with clock 1, a record's first edit, finds no record; else the
    /// unique index of records will tell. And an op is new unless it is its
    /// record's winner; else the unique index of opIds will tell.
    Presume,
    LookUp,
}

impl Care {
    fn presumes_new(self, op: &Op<'_>) -> bool {
        self == Care::Presume && op.revision.clock == 1
    }
}

/// The registers of touched records and where they are stored, in the order
/// of [`Touched::keys`]; `None` where the record is unknown, or presumed to be.
pub struct KnownRecords {
    pub registers: Vec<Option<Register<'static>>>,
    pub rows: Vec<Option<RowId>>,
}

impl KnownRecords {
    /// Reads those that `registers` does not tell already.
    pub fn read(
        records: &Records,
        ops: &[Op<'_>],
        touched: &Touched<'_, '_>,
        mut registers: Vec<Option<Register<'static>>>,
        care: Care,
        snapshot: &Snapshot,
    ) -> Result<Self> {
        let mut rows = vec![None; registers.len()];
        let mut is_new = vec![false; registers.len()];
        for (op, record) in ops.iter().zip(&touched.places) {
            is_new[*record] |= care.presumes_new(op);
        }
        let mut names = records.names(snapshot);
        for (place, key) in touched.keys.iter().enumerate() {
            if is_new[place] || registers[place].is_some() {
                continue;
            }
            if let Some(record) = names.find(&key.table, &key.pk) {
                rows[place] = Some(record.id());
                registers[place] = Some(record.into_register()?);
            }
        }
        Ok(KnownRecords { registers, rows })
    }
}

/// What the log says about an opId.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Logged {
    /// It was not asked.
    Unasked,
    No,
    /// It is there, at this version, with what it overwrote.
    Same {
        version: Version,
        overwrote: Option<Uuid>,
    },
    /// Another op has it.
    Other,
}

/// Looks up in the log the ops of which `logged` tells nothing yet, in the order
/// of the index that leads to them, so that neighbours in it are found on pages
/// that are at hand.
pub fn find_logged<'r>(
    log: &Log,
    ops: &[Op<'_>],
    register: impl Fn(usize) -> Option<&'r Register<'static>>,
    mut logged: Vec<Logged>,
    care: Care,
    caller: &Caller,
    snapshot: &Snapshot,
) -> Result<Vec<Logged>> {
    let mut winners = Vec::new();
    let mut by_op_id = Vec::new();
    for (place, op) in ops.iter().enumerate() {
        match register(place) {
            _ if logged[place] != Logged::Unasked => {}
            Some(winner) if winner.revision.op_id == op.op_id() => {
                winners.push((winner.version, place));
            }
            _ if care == Care::Presume => {}
            _ => by_op_id.push(place),
        }
    }
    // What was pushed together lies together, in the order of versions.
    winners.sort_unstable();
    let mut versions = log.versions(snapshot);
    for (version, place) in winners {
        match versions.find(version) {
            Some(entry) => logged[place] = compare(&ops[place], &entry, caller)?,
            // A grave's entry. The op may have been sent again since.
            None => by_op_id.push(place),
        }
    }
    let mut op_ids = log.op_ids(snapshot);
    for place in in_order(by_op_id, |place| ops[place].op_id()) {
        let entry = op_ids.find(ops[place].op_id());
        logged[place] =
            entry.map_or(Ok(Logged::No), |entry| compare(&ops[place], &entry, caller))?;
    }
    Ok(logged)
}

/// Looks one op up.
pub fn find_by_op_id(
    log: &Log,
    op: &Op<'_>,
    caller: &Caller,
    snapshot: &Snapshot,
) -> Result<Logged> {
    let mut op_ids = log.op_ids(snapshot);
    op_ids.find(op.op_id()).map_or(Ok(Logged::No), |entry| compare(op, &entry, caller))
}

/// An op that the caller may not know of is never the same: that it is stored,
/// and where, is not told.
pub fn compare(op: &Op<'_>, entry: &Entry<'_>, caller: &Caller) -> Result<Logged> {
    let (owner, filled_field, stored) = (entry.owner()?, entry.filled_field()?, entry.op()?);
    if op.payload != stored.payload {
        memory::require(stored.payload.map_or(0, |payload| memory_for(payload, 0)))?;
    }
    let is_same = caller.sees(owner)
        && op.same_content(&stored, |pushed, stored| {
            let digests = Digests::new(server::check_interrupts);
            digests.same(pushed, stored)
                || (!filled_field.is_empty()
                    && same_filled(pushed, filled_field, owner, stored, &digests))
        });
    Ok(match is_same {
        true => Logged::Same { version: entry.version()?, overwrote: entry.overwrote() },
        false => Logged::Other,
    })
}

/// `places` in ascending order of their keys.
pub fn in_order<K: Ord>(
    places: impl IntoIterator<Item = usize>,
    key: impl Fn(usize) -> K,
) -> Vec<usize> {
    let mut places: Vec<usize> = places.into_iter().collect();
    places.sort_unstable_by_key(|place| key(*place));
    places
}
