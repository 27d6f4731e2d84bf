//! The decision on each op at its turn.

use std::rc::Rc;

use super::known::{Logged, find_by_op_id};
use super::patched::Taken;
use super::{Care, Detail, Outcome, Push, Result, Target};
use crate::apply::Tables;
use crate::store::log::Versions;
use crate::store::registry::Registry;
use crate::store::server;
use crate::store::validation::Validation;
use crate::sync::caller::Caller;
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::admission::{Limits, Said, admit};
use sync_ext_core::rules::merge::{Turn, apply, needs_newest, turn};
use sync_ext_core::rules::op::{Op, Operation, Version};
use sync_ext_core::rules::ownership::{Owned, own};
use sync_ext_core::rules::refusal::Refusal;
use sync_ext_core::rules::scope::scope_after;
use sync_ext_core::wire::owner::fill;
use sync_ext_core::wire::push_request::{payload_facts, scope_said};

/// What is to be checked of an allowed op at its turn.
pub struct Allowed<'a> {
    /// What it says about the record's owner and scope.
    pub said: Said<'a>,
    pub scope_field: Option<Rc<str>>,
    pub validation: Option<Rc<Validation>>,
}

/// Checks one op against current settings and tables.
fn allowed<'a>(
    op: &Op<'a>,
    limits: Limits<'_>,
    tables: Option<&Tables>,
    registry: &mut Registry,
) -> Result<std::result::Result<Allowed<'a>, Refusal>> {
    let table = registry.find_latest(&op.key.table)?;
    let fields = table.map(|table| &table.fields);
    let facts = |payload, table: &_| payload_facts(payload, table, &op.key.pk, limits);
    let said = match admit(op, fields, limits, facts) {
        Ok(said) => said,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let validation = table.and_then(|table| table.validation.clone());
    let scope_field = fields.and_then(|fields| fields.scope_field.clone());
    let admitted = tables.map_or(Ok(Ok(())), |tables| tables.admit(op, limits.max_row_clock))?;
    Ok(admitted.map(|()| Allowed { said, scope_field, validation }))
}

/// Why each op is refused in a workspace that does not exist; `None` if one can be
/// accepted.
pub fn refuse_all(
    ops: &[Op<'_>],
    limits: Limits<'_>,
    caller: &Caller,
    tables: Option<&Tables>,
) -> Result<Option<Vec<Refusal>>> {
    let mut registry = Registry::open()?;
    let mut refusals = Vec::with_capacity(ops.len());
    for op in ops {
        server::check_interrupts();
        let owned = match allowed(op, limits, tables, &mut registry)? {
            Ok(allowed) => own(caller.user(), &allowed.said.owner, op.operation, None),
            Err(refusal) => Err(refusal),
        };
        match owned.and_then(|_| turn(op, None)) {
            Ok(_) => return Ok(None),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Ok(Some(refusals))
}

impl Push<'_> {
    /// Reads what the tables contain about the batch, and decides on every op. False if
    /// a presumption is wrong.
    pub fn decide(&mut self, care: Care) -> Result<bool> {
        self.find_records(care)?;
        let Target { locked, log, .. } = self.target;
        let mut versions = log.versions(&locked.snapshot);
        self.find_logged(care, &mut versions)?;
        self.take_turns(care, &mut versions)
    }

    /// Decides on every op, by what was read about the batch. False if a presumption is
    /// wrong.
    pub fn take_turns(&mut self, care: Care, versions: &mut Versions<'_>) -> Result<bool> {
        let mut registry = Registry::open()?;
        for place in 0..self.ops.len() {
            server::check_interrupts();
            match self.outcome(place, care, &mut registry, versions)? {
                Some(outcome) => self.ops[place].outcome = outcome,
                None => return Ok(false),
            }
        }
        // Read the clock once, under the lock.
        self.at = server::now();
        Ok(true)
    }

    /// `None` if a presumption is wrong.
    fn outcome(
        &mut self,
        place: usize,
        care: Care,
        registry: &mut Registry,
        versions: &mut Versions<'_>,
    ) -> Result<Option<Outcome>> {
        let (op, logged) = (self.ops[place].op, self.ops[place].logged());
        match logged {
            Logged::Same { version, overwrote } => {
                if op.patch.is_some() {
                    self.read_newest(self.ops[place].record, versions)?;
                }
                return Ok(Some(Outcome::Replay { version, overwrote }));
            }
            Logged::Other => return Ok(Some(Outcome::Refused(Refusal::ConflictWithLog))),
            Logged::Unasked | Logged::No => {}
        }
        if let Some(refusal) = self.refused.get(&place) {
            return Ok(Some(Outcome::Refused(refusal.clone())));
        }
        let Target { limits, tables, .. } = self.target;
        Ok(match allowed(op, limits, tables, registry)? {
            // It is asked once, and about what is certain.
            Ok(Allowed { validation: Some(_), .. }) if care == Care::Presume => None,
            Ok(allowed) => match self.take_turn(place, &allowed, registry, versions)? {
                // A refusal may come from a wrong presumption.
                Outcome::Refused(_) if care == Care::Presume => None,
                outcome => Some(outcome),
            },
            // A replay takes precedence over current settings and tables.
            Err(_) if logged == Logged::Unasked => match find_by_op_id(&self.target, op)? {
                Logged::Same { .. } => None,
                found => {
                    self.ops[place].outcome = Outcome::Undecided(found);
                    self.outcome(place, care, registry, versions)?
                }
            },
            // Its record, which the reply shows, may be known.
            Err(refusal) if care == Care::Presume && refusal.row().is_some() => None,
            Err(refusal) => Some(Outcome::Refused(refusal)),
        })
    }

    fn take_turn(
        &mut self,
        place: usize,
        allowed: &Allowed<'_>,
        registry: &mut Registry,
        versions: &mut Versions<'_>,
    ) -> Result<Outcome> {
        let (op, record) = (self.ops[place].op, self.ops[place].record);
        let known = self.touched[record].state.as_ref();
        let owner = known.map(|state| &state.owner);
        let owned = match own(self.target.caller.user(), &allowed.said.owner, op.operation, owner) {
            Ok(owned) => owned,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        let taken = if op.patch.is_some() {
            self.take_patch(place, op, allowed, versions)?
        } else {
            if known.is_some_and(|state| needs_newest(op, state)) {
                self.read_newest(record, versions)?;
            }
            let filled = self.fill(op, &owned, registry)?;
            self.take_whole(place, owned, filled, allowed, versions)?
        };
        let (decision, detail) = match taken {
            Ok(taken) => taken,
            Err(refusal) => return Ok(Outcome::Refused(refusal)),
        };
        if decision.applied {
            self.touched[record].newest_op = Some(place);
        }
        self.head = decision.version;
        Ok(Outcome::New { decision, detail: detail.map(Box::new) })
    }

    /// Decides a put or delete at its turn, and takes the next version unless it is refused.
    fn take_whole(
        &mut self,
        place: usize,
        owned: Owned,
        filled: Option<Detail>,
        allowed: &Allowed<'_>,
        versions: &mut Versions<'_>,
    ) -> Result<Taken> {
        let (op, record) = (self.ops[place].op, self.ops[place].record);
        let turn = match turn(op, self.touched[record].state.as_ref()) {
            Ok(turn) => turn,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let (Some(validation), Turn::Replaces) = (allowed.validation.as_deref(), &turn) {
            let payload = match (op.operation, &filled) {
                (Operation::Delete, _) => None,
                (_, Some(Detail::Filled { payload, .. })) => Some(payload.as_str()),
                _ => op.payload,
            };
            let previous = self.record_now(record, versions)?;
            let rejection = self.target.rejection(validation, op, payload, previous.as_deref())?;
            if let Some(refusal) = rejection {
                return Ok(Err(refusal));
            }
        }
        let next = self.next_version()?;
        let touched = &mut self.touched[record];
        let field = allowed.scope_field.as_deref();
        // The owner may be the scope.
        let said = match &filled {
            Some(Detail::Filled { payload, .. }) => &scope_said(Some(payload), field),
            _ => &allowed.said.scope,
        };
        let scope = scope_after(touched.state.as_ref(), op, &turn, field, said);
        let decision = apply(&mut touched.state, op, &turn, owned.owner, scope, next);
        if decision.applied {
            touched.merge = None;
        }
        Ok(Ok((decision, filled)))
    }

    pub fn next_version(&self) -> Result<Version> {
        self.head.next().ok_or_else(|| {
            let head = self.target.locked.workspace.progress.head;
            SyncError::VersionsExhausted { head: head.get() }
        })
    }

    /// The payload with its owner, if the op did not name the owner.
    fn fill(&self, op: &Op<'_>, owned: &Owned, registry: &mut Registry) -> Result<Option<Detail>> {
        let (Some(payload), Some(owner), true) = (op.payload, &owned.owner, owned.fill) else {
            return Ok(None);
        };
        let table = registry.find_latest(&op.key.table)?;
        Ok(table
            .and_then(|table| table.fields.owner_field.as_deref())
            .map(|field| (field.to_owned(), fill(payload, field, owner)))
            .map(|(field, payload)| Detail::Filled { field, payload }))
    }
}
