//! A batch that was pushed before, because its reply got lost.
//!
//! It lies in the log as it was pushed: in its order, one version after the
//! other, but for what was refused, was a replay even then, or is purged. Reading
//! the log from its first op on finds the rest without a look-up each; and reading
//! on to the head, if that is near, tells the winners of the records too: a
//! record's winner is its last applied entry. (GC deletes what an entry superseded
//! before or together with the entry itself, so an applied entry that is there is
//! never older than a winner that is gone.)

use super::Result;
use super::known::{Logged, Touched, compare};
use crate::rules::merge::Register;
use crate::rules::op::{Op, Operation, Version};
use crate::store::log::{Entry, Log};
use crate::store::record::owner_of;
use crate::store::snapshot::Snapshot;
use crate::sync::caller::Caller;

/// How far from the batch's end the head may be, in sizes of the batch: reading
/// that much costs less than looking every record up.
const MAX_TAIL: i64 = 4;

/// What the log tells about a batch, as far as it is a retry.
pub struct Retry {
    /// For each op.
    pub logged: Vec<Logged>,
    /// For each touched record; `None` where the log does not tell.
    pub registers: Vec<Option<Register<'static>>>,
}

impl Retry {
    pub fn nothing(ops: usize, records: usize) -> Retry {
        Retry { logged: vec![Logged::Unasked; ops], registers: vec![None; records] }
    }

    /// `None` if the log does not hold the batch's first op: it is taken for no
    /// retry.
    pub fn find(
        log: &Log,
        ops: &[Op<'_>],
        touched: &Touched<'_, '_>,
        head: Version,
        caller: &Caller,
        snapshot: &Snapshot,
    ) -> Result<Option<Retry>> {
        let Some(first) = ops.first() else { return Ok(None) };
        let first = log.op_ids(snapshot).find(first.op_id()).map(|entry| entry.version());
        let Some(first) = first.transpose()? else { return Ok(None) };
        let mut retry = Retry::nothing(ops.len(), touched.keys.len());
        retry.read(log, ops, touched, (first, head), caller, snapshot)?;
        Ok(Some(retry))
    }

    fn read(
        &mut self,
        log: &Log,
        ops: &[Op<'_>],
        touched: &Touched<'_, '_>,
        (first, head): (Version, Version),
        caller: &Caller,
        snapshot: &Snapshot,
    ) -> Result<()> {
        let mut entries = log.from(first, snapshot);
        let mut entry = entries.next();
        let mut last = first;
        for (place, op) in ops.iter().enumerate() {
            let Some(found) = &entry else { break };
            // An op that was refused then took no version.
            if found.op_id()? == op.op_id() {
                let logged = compare(op, found, caller)?;
                let record = match logged {
                    Logged::Same { .. } => Some(touched.places[place]),
                    // The opId, but of another record perhaps.
                    _ => touched.place_of(found.table()?, found.pk()?),
                };
                self.logged[place] = logged;
                self.see(record, found)?;
                last = found.version()?;
                entry = entries.next();
            }
        }
        if head.get() - last.get() > MAX_TAIL * ops.len() as i64 {
            self.registers.fill(None);
            return Ok(());
        }
        while let Some(found) = entry {
            self.see(touched.place_of(found.table()?, found.pk()?), &found)?;
            entry = entries.next();
        }
        // The others have to be written, perhaps, so their rows are needed.
        for (logged, record) in self.logged.iter().zip(&touched.places) {
            if matches!(logged, Logged::Unasked) {
                self.registers[*record] = None;
            }
        }
        Ok(())
    }

    fn see(&mut self, record: Option<usize>, entry: &Entry<'_>) -> Result<()> {
        if let (Some(record), true) = (record, entry.applied()?) {
            self.registers[record] = Some(Register {
                revision: entry.revision()?.into_owned(),
                version: entry.version()?,
                deleted: entry.operation()? == Operation::Delete,
                owner: owner_of(entry.owner()?),
            });
        }
        Ok(())
    }
}
