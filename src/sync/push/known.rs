//! What the tables know about a batch before any of it is stored.

use super::Result;
use crate::rules::merge::Register;
use crate::rules::op::{Op, RecordKey, Version};
use crate::store::RowId;
use crate::store::log::{Entry, Log};
use crate::store::record::Records;
use crate::store::snapshot::Snapshot;
use crate::wire::push_request::same_payload;

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

/// The registers of touched records and where they are stored, in the order
/// of [`Touched::keys`]; `None` where the record is unknown.
pub struct KnownRecords {
    pub registers: Vec<Option<Register<'static>>>,
    pub rows: Vec<Option<RowId>>,
}

impl KnownRecords {
    /// Reads those that `registers` does not tell already.
    pub fn read(
        records: &Records,
        keys: &[&RecordKey<'_>],
        mut registers: Vec<Option<Register<'static>>>,
        snapshot: &Snapshot,
    ) -> Result<Self> {
        let mut rows = vec![None; keys.len()];
        let (places, keys): (Vec<usize>, Vec<&RecordKey<'_>>) =
            keys.iter().enumerate().filter(|(place, _)| registers[*place].is_none()).unzip();
        records.find_each(&keys, snapshot, |found, record| {
            let place = places[found];
            rows[place] = Some(record.id());
            registers[place] = Some(record.into_register()?);
            Ok(())
        })?;
        Ok(KnownRecords { registers, rows })
    }
}

/// Of which ops the log is asked whether it holds them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Of those whose record is known. Record rows are never deleted, so what
    /// was logged has one: an op of an unknown record is no replay. At most it
    /// reuses the opId of another record's op, which shows when it is stored.
    OfKnownRecords,
    OfAll,
}

/// What the log says about an opId.
#[derive(Clone, Copy)]
pub enum Logged {
    /// It was not asked.
    Unasked,
    No,
    /// At this version; and whether it is the same op.
    At(Version, bool),
}

/// Looks up in the log the ops of which `logged` tells nothing yet, each in the order of the index that leads to it, so
/// that neighbours in it are found on pages that are at hand.
pub fn find_logged<'r>(
    log: &Log,
    ops: &[Op<'_>],
    register: impl Fn(usize) -> Option<&'r Register<'static>>,
    mut logged: Vec<Logged>,
    ask: Ask,
    snapshot: &Snapshot,
) -> Result<Vec<Logged>> {
    let mut winners = Vec::new();
    let mut by_op_id = Vec::new();
    for (place, op) in ops.iter().enumerate() {
        match register(place) {
            _ if !matches!(logged[place], Logged::Unasked) => {}
            None if ask == Ask::OfKnownRecords => {}
            Some(winner) if winner.revision.op_id == op.op_id() => {
                winners.push((winner.version, place));
            }
            _ => by_op_id.push(place),
        }
    }
    // What was pushed together lies together, in the order of versions.
    winners.sort_unstable();
    let mut versions = log.versions(snapshot);
    for (version, place) in winners {
        match versions.find(version) {
            Some(entry) => logged[place] = compare(&ops[place], &entry)?,
            // A grave's entry. The op may have been sent again since.
            None => by_op_id.push(place),
        }
    }
    let mut op_ids = log.op_ids(snapshot);
    for place in in_order(by_op_id, |place| ops[place].op_id()) {
        let entry = op_ids.find(ops[place].op_id());
        logged[place] = entry.map_or(Ok(Logged::No), |entry| compare(&ops[place], &entry))?;
    }
    Ok(logged)
}

/// Looks one op up.
pub fn find_by_op_id(log: &Log, op: &Op<'_>, snapshot: &Snapshot) -> Result<Logged> {
    let mut op_ids = log.op_ids(snapshot);
    op_ids.find(op.op_id()).map_or(Ok(Logged::No), |entry| compare(op, &entry))
}

pub fn compare(op: &Op<'_>, entry: &Entry<'_>) -> Result<Logged> {
    Ok(Logged::At(entry.version()?, op.same_content(&entry.op()?, same_payload)))
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
