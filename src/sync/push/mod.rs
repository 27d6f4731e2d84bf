//! `sync_push`: stores a batch of ops and resolves conflicts. [`server_ops`]: the same for
//! ops that the server makes.

mod applied;
mod decide;
mod held;
mod known;
mod patched;
mod retry;
mod server_ops;
mod validate;
mod winners;
mod write;

use std::collections::BTreeMap;

use held::Held;
use known::Logged;
use patched::Merge;
pub use patched::patched_names;
pub use server_ops::write;
use winners::Winners;

use super::Result;
use super::caller::{Caller, Permit};
use crate::apply::{Attachments, Tables, until_rows_are_free};
use crate::guc;
use crate::store::counters::{self, Counter};
use crate::store::log::Log;
use crate::store::mvcc::MvccSnapshot;
use crate::store::record::Records;
use crate::store::subtransaction::Subtransaction;
use crate::store::workspace::{self, LockedWorkspace};
use crate::store::{Access, Duplicates, RowId, memory, server};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::admission::Limits;
use sync_ext_core::rules::apply::MAX_DEVICE_CLOCK;
use sync_ext_core::rules::batch::Batch;
use sync_ext_core::rules::merge::{Decision, RecordState};
use sync_ext_core::rules::op::{Op, RecordKey, Timestamp, Version};
use sync_ext_core::rules::refusal::Refusal;
use sync_ext_core::rules::server_op::MAX_CLOCK;
use sync_ext_core::wire::push_reply::{PushReply, PushTally, epoch_millis};
use sync_ext_core::wire::push_request::{MEMORY_FOR_ITEM, memory_for, parse};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::value::Digests;
use uuid::Uuid;

pub fn push<'o>(
    workspace_id: Option<&str>,
    ops: impl FnOnce() -> Option<&'o str>,
) -> Result<Reply> {
    server::require_writable(c"sync_push()");
    // Check before locking, so that non-members cannot block members.
    let permit = Permit::now(Action::Push, workspace_id)?;
    let batch = read(ops())?;
    match store(&permit, &batch)? {
        Stored::Reply(reply) => Ok(reply),
        Stored::Nothing(refusals) => {
            let snapshot = MvccSnapshot::fresh();
            permit.renew(&snapshot)?;
            let workspace = workspace::find(permit.workspace_id, &snapshot)?;
            let head = workspace.map_or(Version::ZERO, |workspace| workspace.progress.head);
            refuse(&batch, &refusals, head)
        }
    }
}

pub enum Stored {
    Reply(Reply),
    /// No op can be accepted, for these reasons: nothing was locked or created.
    Nothing(Vec<Refusal>),
}

/// Reads the ops that a caller passes.
pub fn read(ops: Option<&str>) -> Result<Batch<'_>> {
    let ops = ops.ok_or(SyncError::OpsNotAnArray)?;
    // Escaped keys are decoded, and the members of patches listed; each may be the whole
    // text.
    let memory = memory_for(ops);
    memory::require(memory)?;
    let parsed = parse(ops, guc::max_ops_per_push(), server::check_interrupts)?;
    memory::require(memory + parsed.len() * MEMORY_FOR_ITEM)?;
    let digests = Digests::new(server::check_interrupts);
    Ok(Batch::gather(parsed, |payload| digests.of_value(payload)))
}

/// The reply to a batch of which nothing is stored.
pub fn refuse(batch: &Batch<'_>, refusals: &[Refusal], head: Version) -> Result<Reply> {
    let reply = reply_to_all(PushReply::begin(), batch, |reply, op_id, place| {
        reply.refused(op_id, &refusals[place], None)
    })?;
    Ok(reply.finish(head))
}

/// Stores the ops of a batch. An unknown workspace is created if one of them can be
/// accepted.
pub fn store(permit: &Permit<'_>, batch: &Batch<'_>) -> Result<Stored> {
    if batch.ops.is_empty() {
        return Ok(Stored::Nothing(Vec::new()));
    }
    applying(&batch.ops, |tables, since| store_in(permit, batch, tables, since))
}

/// Runs a push, which may have to write typed rows.
fn applying<T>(
    ops: &[Op<'_>],
    mut push: impl FnMut(Option<&Tables>, Attachments) -> Result<T>,
) -> Result<T> {
    let since = Attachments::now();
    match Tables::of(ops)? {
        None => push(None, since),
        Some(tables) => {
            server::require_origin()?;
            until_rows_are_free(|| push(Some(&tables), since))
        }
    }
}

fn store_in(
    permit: &Permit<'_>,
    batch: &Batch<'_>,
    tables: Option<&Tables>,
    since: Attachments,
) -> Result<Stored> {
    let max_hlc_millis = guc::max_clock_drift_millis()
        .map(|drift| epoch_millis(server::now()).saturating_add(drift));
    let limits = Limits { max_hlc_millis, max_row_clock: MAX_DEVICE_CLOCK, ..limits_of(permit) };
    let refuse = || decide::refuse_all(&batch.ops, limits, &permit.caller, tables);
    let mut held = match Held::lock(permit.workspace_id, refuse)? {
        Ok(held) => held,
        Err(refusals) => return Ok(Stored::Nothing(refusals)),
    };
    permit.renew(&held.locked.snapshot)?;
    since.require_same(&batch.ops, tables)?;
    held.capture(tables)?;
    let (reply, head) = push_to(&held.locked, batch, limits, &permit.caller, tables)?;
    let head = held.finish(head, tables)?;
    Ok(Stored::Reply(reply.finish(head)))
}

/// What applies to every op; hlc and clock of a server op are not bounded.
fn limits_of<'p>(permit: &Permit<'p>) -> Limits<'p> {
    Limits {
        workspace_id: permit.workspace_id,
        max_payload_bytes: guc::max_payload_bytes(),
        max_payload_depth: guc::max_payload_depth(),
        max_hlc_millis: None,
        max_row_clock: MAX_CLOCK,
    }
}

/// Returns the reply, and the head after the push.
fn push_to(
    locked: &LockedWorkspace,
    batch: &Batch<'_>,
    limits: Limits<'_>,
    caller: &Caller,
    tables: Option<&Tables>,
) -> Result<(PushReply, Version)> {
    let key = locked.workspace.key;
    let (log, records) = (Log::open(key, Access::Write)?, Records::open(key, Access::Write)?);
    let target = Target { locked, log: &log, records: &records, limits, caller, tables };
    let mut push = Push::of(target, &batch.ops);
    match tables {
        None => push.store()?,
        Some(tables) => push.store_applied(tables)?,
    }
    push.announce()?;
    let mut winners = Winners::of(&push);
    let reply = reply_to_all(PushReply::begin(), batch, |reply, op_id, place| {
        winners.reply(reply, op_id, place)
    })?;
    Ok((reply, push.head))
}

/// The workspace, tables, limits and caller of a push.
#[derive(Clone, Copy)]
struct Target<'p> {
    locked: &'p LockedWorkspace,
    log: &'p Log,
    records: &'p Records,
    limits: Limits<'p>,
    caller: &'p Caller,
    /// The attached tables among those of the batch.
    tables: Option<&'p Tables>,
}

/// A batch being stored in a workspace.
struct Push<'p> {
    target: Target<'p>,
    /// In the order of their turns.
    ops: Vec<PushedOp<'p>>,
    /// Without duplicates, in the order of their keys.
    touched: Vec<TouchedRecord<'p>>,
    /// The size of the JSON that is kept of merged records.
    kept_bytes: usize,
    /// The ops, by their places, that a typed row refused.
    refused: BTreeMap<usize, Refusal>,
    /// The records as their typed rows have them, where that is not what was pushed.
    images: BTreeMap<usize, String>,
    head: Version,
    at: Timestamp,
}

/// One of the distinct ops of a batch.
struct PushedOp<'p> {
    op: &'p Op<'p>,
    /// The index of its record in `touched`.
    record: usize,
    outcome: Outcome,
}

enum Outcome {
    Undecided(Logged),
    Refused(Refusal),
    /// It takes a version.
    New {
        decision: Decision,
        detail: Option<Box<Detail>>,
    },
    /// It is already in the log.
    Replay {
        version: Version,
        overwrote: Option<Uuid>,
    },
}

/// What few new ops have.
enum Detail {
    /// A put, to whose payload the server added the owner.
    Filled { field: String, payload: String },
    /// A patch that was merged: which of its fields it won.
    Won(Vec<bool>),
}

/// A record that a batch touches.
struct TouchedRecord<'p> {
    key: &'p RecordKey<'p>,
    /// The index of the last op of this batch that names it.
    last_op: usize,
    /// Where it is stored; `None` if it is unknown or presumed to be, or if the log
    /// showed that it does not change.
    row: Option<RowId>,
    state: Option<RecordState<'p>>,
    /// The index of the op of this batch whose entry is the newest.
    newest_op: Option<usize>,
    /// What patches of this batch change, if they change anything.
    merge: Option<Box<Merge<'p>>>,
}

/// Whether to presume some facts instead of looking them up; storing then shows if they
/// are wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// A put or delete with clock 1, a record's first edit, has no record; otherwise the unique
    /// index of records objects. And an op is new unless it is its record's winner;
    /// otherwise the unique index of opIds objects.
    Presume,
    LookUp,
}

/// From this size on a batch is worth a subtransaction to save its look-ups, and a
/// look-up to find out whether it is a retry.
const LARGE: usize = 8;

impl<'p> Push<'p> {
    fn of(target: Target<'p>, ops: &'p [Op<'p>]) -> Push<'p> {
        let mut by_record: Vec<usize> = (0..ops.len()).collect();
        by_record.sort_unstable_by_key(|place| &ops[*place].key);
        let pushed = |op| PushedOp { op, record: 0, outcome: Outcome::Undecided(Logged::Unasked) };
        let mut push = Push {
            target,
            ops: ops.iter().map(pushed).collect(),
            touched: Vec::with_capacity(ops.len()),
            kept_bytes: 0,
            refused: BTreeMap::new(),
            images: BTreeMap::new(),
            head: target.locked.workspace.progress.head,
            at: 0,
        };
        for place in by_record {
            let key = &ops[place].key;
            match push.touched.last_mut() {
                Some(record) if record.key == key => record.last_op = record.last_op.max(place),
                _ => push.touched.push(TouchedRecord::of(key, place)),
            }
            push.ops[place].record = push.touched.len() - 1;
        }
        push
    }

    fn store(&mut self) -> Result<()> {
        if self.ops.len() >= LARGE && !self.read_retry()? && Subtransaction::is_cheap() {
            if self.decide(Care::Presume)? && self.try_to_write()? {
                return Ok(());
            }
            self.forget();
        }
        if !self.decide(Care::LookUp)? {
            return Err(SyncError::Damaged { what: "The log contradicts itself.".to_owned() });
        }
        let _ = self.write(Duplicates::Raise)?;
        Ok(())
    }

    /// Undoes decisions that were based on a wrong presumption.
    fn forget(&mut self) {
        self.undo(|_| Logged::Unasked);
    }

    /// Undoes the decisions; of each op stays what `logged` says.
    fn undo(&mut self, logged: impl Fn(&Outcome) -> Logged) {
        for op in &mut self.ops {
            op.outcome = Outcome::Undecided(logged(&op.outcome));
        }
        for record in &mut self.touched {
            *record = TouchedRecord::of(record.key, record.last_op);
        }
        self.kept_bytes = 0;
        self.head = self.target.locked.workspace.progress.head;
    }
}

impl<'p> TouchedRecord<'p> {
    fn of(key: &'p RecordKey<'p>, last_op: usize) -> TouchedRecord<'p> {
        TouchedRecord { key, last_op, row: None, state: None, newest_op: None, merge: None }
    }
}

impl PushedOp<'_> {
    /// What the log says about it, until it is decided.
    fn logged(&self) -> Logged {
        match self.outcome {
            Outcome::Undecided(logged) => logged,
            _ => Logged::Unasked,
        }
    }

    /// The payload as stored.
    fn payload(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::New { detail: Some(detail), .. } => match &**detail {
                Detail::Filled { payload, .. } => Some(payload),
                Detail::Won(_) => self.op.payload,
            },
            _ => self.op.payload,
        }
    }
}

/// Adds a result per item of the batch; equal items share an outcome.
fn reply_to_all(
    mut reply: PushReply,
    batch: &Batch<'_>,
    mut reply_to: impl FnMut(&mut PushReply, Option<&str>, usize) -> Result<()>,
) -> Result<PushReply> {
    for item in &batch.items {
        server::check_interrupts();
        match &item.op {
            Err(refusal) => reply.refused(item.op_id, refusal, None)?,
            Ok(place) => reply_to(&mut reply, item.op_id, *place)?,
        }
    }
    count(&reply.tally);
    Ok(reply)
}

fn count(tally: &PushTally) {
    for (counter, by) in [
        (Counter::Pushes, 1),
        (Counter::OpsApplied, tally.applied),
        (Counter::OpsLost, tally.lost),
        (Counter::OpsReplayed, tally.replayed),
        (Counter::OpsRefusedValidation, tally.invalid),
        (Counter::OpsRefusedOversized, tally.oversized),
        (Counter::OpsRefusedConflict, tally.conflicting),
        (Counter::OpsRefusedUnauthorized, tally.unauthorized),
        (Counter::OpsRefusedBaseMissing, tally.without_base),
        (Counter::OpsRefusedRecordConflict, tally.record_conflicts),
        (Counter::OpsRefusedFieldConflict, tally.field_conflicts),
        (Counter::OpsRefusedConstraint, tally.constraints),
        (Counter::OpsRefusedRejected, tally.rejected),
        (Counter::OpsRefusedReadOnly, tally.read_only),
    ] {
        counters::count(counter, by);
    }
}
