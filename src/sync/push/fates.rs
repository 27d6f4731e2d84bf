//! What becomes of each op: replays, conflicts with the log, refusals, and whose
//! the records of the others are.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::known::{Care, Logged, find_by_op_id, find_logged};
use super::{Push, Result};
use crate::rules::admission::{Limits, admit};
use crate::rules::merge::{Filled, Register, Turn};
use crate::rules::op::{Op, Version};
use crate::rules::ownership::{Claim, Owned, Owner, own};
use crate::rules::refusal::Refusal;
use crate::store::registry::Registry;
use crate::store::server;
use crate::store::snapshot::Snapshot;
use crate::wire::owner::fill;
use crate::wire::push_request::payload_claims;

/// What became of one of the batch's distinct ops.
pub enum Fate {
    Refused(Refusal),
    /// It takes a version: the n-th turn of the merge.
    New(usize),
    /// It is in the log already; its record is the n-th of those touched.
    Replay {
        version: Version,
        record: usize,
        overwrote: Option<Uuid>,
    },
}

/// Today's rules for one op; gives what it claims about the record's owner.
pub fn check<'a>(
    op: &Op<'a>,
    limits: Limits<'_>,
    registry: &mut Registry,
    snapshot: &Snapshot,
) -> Result<std::result::Result<Claim<'a>, Refusal>> {
    let table = registry.find(&op.key.table, snapshot)?;
    Ok(admit(op, table, limits, |payload, table| {
        payload_claims(payload, table, &op.key.pk, limits)
    }))
}

impl<'p, 'a> Push<'p, 'a> {
    /// Replays, conflicts with the log, refusals; what is left gets a turn.
    pub fn fates(
        &self,
        registers: &[Option<Register<'static>>],
        logged: Vec<Logged>,
        care: Care,
    ) -> Result<Option<(Vec<Fate>, Vec<Turn<'p, 'a>>)>> {
        let Push { log, ops, touched, caller, .. } = *self;
        let snapshot = &self.locked.snapshot;
        let register = |op: usize| registers[touched.places[op]].as_ref();
        let logged = find_logged(log, ops, register, logged, care, caller, snapshot)?;
        let mut registry = Registry::open()?;
        // Of records that this batch creates.
        let mut owners: BTreeMap<usize, Owner> = BTreeMap::new();
        let mut fates = Vec::with_capacity(ops.len());
        let mut turns = Vec::with_capacity(ops.len());
        for ((op, mut logged), &record) in ops.iter().zip(logged).zip(&touched.places) {
            server::check_interrupts();
            let verdict = match logged {
                Logged::Same { .. } | Logged::Other => Ok(Claim::Unasked),
                _ => check(op, self.limits, &mut registry, snapshot)?,
            };
            if logged == Logged::Unasked && verdict.is_err() {
                // It will not be stored; and whether it is in the log comes
                // before today's rules.
                logged = find_by_op_id(log, op, caller, snapshot)?;
                if let Logged::Same { .. } = logged {
                    return Ok(None);
                }
            }
            fates.push(match (logged, verdict) {
                (Logged::Same { version, overwrote }, _) => {
                    Fate::Replay { version, record, overwrote }
                }
                (Logged::Other, _) => Fate::Refused(Refusal::ConflictWithLog),
                (_, Err(refusal)) => Fate::Refused(refusal),
                (_, Ok(claim)) => {
                    let known = registers[record].as_ref().map(|register| &register.owner);
                    let known = known.or(owners.get(&record));
                    match own(caller.user(), &claim, op.operation, known) {
                        // It may be that the record is there and somebody's.
                        Err(_) if care == Care::Presume => return Ok(None),
                        Err(refusal) => Fate::Refused(refusal),
                        Ok(owned) => {
                            if known.is_none() && owned.owner.is_some() {
                                owners.insert(record, owned.owner.clone());
                            }
                            let filled = self.fill(op, &owned, &mut registry)?;
                            turns.push(Turn { op, record, owner: owned.owner, filled });
                            Fate::New(turns.len() - 1)
                        }
                    }
                }
            });
        }
        Ok(Some((fates, turns)))
    }

    /// The payload with its owner, if the op did not tell.
    fn fill(&self, op: &Op<'_>, owned: &Owned, registry: &mut Registry) -> Result<Option<Filled>> {
        let (Some(payload), Some(owner), true) = (op.payload, &owned.owner, owned.fill) else {
            return Ok(None);
        };
        let table = registry.find(&op.key.table, &self.locked.snapshot)?;
        Ok(table
            .and_then(|table| table.owner_field.as_deref())
            .map(|field| Filled { field: field.to_owned(), payload: fill(payload, field, owner) }))
    }
}
