//! `sync_push`: store a batch of ops and decide conflicts.

mod fates;
mod known;
mod retry;
mod told;

use fates::{Fate, check};
use known::{Care, KnownRecords, Touched};
use retry::Retry;
use told::Told;

use super::Result;
use super::caller::Caller;
use crate::error::SyncError;
use crate::guc::{self, Notify};
use crate::rules::access::Action;
use crate::rules::admission::Limits;
use crate::rules::batch::{Batch, Item};
use crate::rules::history::Progress;
use crate::rules::merge::{Merge, Register, Turn, merge};
use crate::rules::op::{Op, Timestamp, Version};
use crate::rules::ownership::own;
use crate::store::counters::{self, Counter};
use crate::store::log::{Log, LogWriter};
use crate::store::record::{RecordWriter, Records};
use crate::store::registry::Registry;
use crate::store::snapshot::Snapshot;
use crate::store::subtransaction::Subtransaction;
use crate::store::workspace::{self, LockedWorkspace, Workspace};
use crate::store::{Access, Locked, RowId, Wait, memory, notify, server};
use crate::wire::ids::WorkspaceId;
use crate::wire::notice::Changes;
use crate::wire::push_reply::{PushReply, PushTally};
use crate::wire::push_request::{memory_for, parse};
use crate::wire::reply::Reply;
use crate::wire::value::Digests;

pub fn push<'o>(
    workspace_id: Option<&str>,
    ops: impl FnOnce() -> Option<&'o str>,
) -> Result<Reply> {
    server::require_writable(c"sync_push()");
    let caller = Caller::identify()?;
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    // Check before locking, so that non-members cannot block members.
    caller.require_now(Action::Push, workspace_id)?;
    push_as(&caller, workspace_id, ops())
}

/// Pushes for a caller who may.
pub fn push_as(caller: &Caller, workspace_id: &str, ops: Option<&str>) -> Result<Reply> {
    let ops = ops.ok_or(SyncError::OpsNotAnArray)?;
    // A key that is escaped is decoded, and may be all there is.
    memory::require(ops.len())?;
    let items = parse(ops, guc::max_ops_per_push(), server::check_interrupts)?;
    memory::require(memory_for(ops, items.len()))?;
    let (op_ids, parsed): (Vec<_>, Vec<_>) =
        items.into_iter().map(|item| (item.op_id, item.op)).unzip();
    let digests = Digests::new(server::check_interrupts);
    let batch = Batch::gather(parsed, |payload| digests.of_value(payload));
    let limits = Limits {
        workspace_id,
        max_payload_bytes: guc::max_payload_bytes(),
        max_payload_depth: guc::max_payload_depth(),
    };
    let reply = match lock_or_create(&batch.ops, limits, caller)? {
        Turnout::Locked { locked, is_new } => {
            caller.require_still(Action::Push, workspace_id, &locked.snapshot)?;
            let reply = push_locked(&locked, is_new, &batch, &op_ids, limits, caller)?;
            drop(locked);
            server::end_command();
            reply
        }
        Turnout::NothingToStore(fates) => {
            let snapshot = Snapshot::fresh();
            caller.require_still(Action::Push, workspace_id, &snapshot)?;
            let known = workspace::find(workspace_id, &snapshot)?;
            let head = known.map_or(Version::ZERO, |workspace| workspace.progress.head);
            let reply = PushReply::new();
            reply_to_all(reply, &batch.items, &op_ids, &fates, |_, _, _| Ok(()))?.finish(head)
        }
    };
    Ok(reply)
}

enum Turnout {
    Locked {
        locked: LockedWorkspace,
        /// Created by this call.
        is_new: bool,
    },
    /// No op can be accepted: there is nothing to lock or create.
    NothingToStore(Vec<Fate>),
}

/// The workspace, locked; created if it is unknown and the batch has an op
/// that will be accepted.
fn lock_or_create(ops: &[Op<'_>], limits: Limits<'_>, caller: &Caller) -> Result<Turnout> {
    if ops.is_empty() {
        return Ok(Turnout::NothingToStore(Vec::new()));
    }
    let mut is_new = false;
    loop {
        if let Locked::Row(locked) = workspace::lock(limits.workspace_id, Wait::Block)? {
            return Ok(Turnout::Locked { locked, is_new });
        }
        let snapshot = Snapshot::fresh();
        let mut registry = Registry::open()?;
        let mut refused = Vec::new();
        for op in ops {
            let owned = match check(op, limits, &mut registry, &snapshot)? {
                Ok(claim) => own(caller.user(), &claim, op.operation, None).map(|_| ()),
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = owned {
                refused.push(Fate::Refused(refusal));
            }
        }
        if refused.len() == ops.len() {
            return Ok(Turnout::NothingToStore(refused));
        }
        // Afterwards it exists, whoever created it, and can be locked.
        is_new = workspace::create(limits.workspace_id)?;
    }
}

/// A locked workspace and a batch to be stored in it.
struct Push<'p, 'a> {
    locked: &'p LockedWorkspace,
    log: &'p Log,
    records: &'p Records,
    ops: &'p [Op<'a>],
    touched: &'p Touched<'p, 'a>,
    limits: Limits<'p>,
    caller: &'p Caller,
}

/// What a push will store.
struct Decided<'p, 'a> {
    fates: Vec<Fate>,
    turns: Vec<Turn<'p, 'a>>,
    merged: Merge<'a>,
    rows: Vec<Option<RowId>>,
    at: Timestamp,
}

impl<'a> Decided<'_, 'a> {
    /// The records that change, by their places, and what they become.
    fn changed(&self) -> impl Iterator<Item = (usize, &Register<'a>)> {
        let registers = self.merged.registers.iter().zip(&self.merged.changed).enumerate();
        registers.filter_map(|(place, (register, changed))| {
            register.as_ref().filter(|_| *changed).map(|register| (place, register))
        })
    }
}

fn push_locked(
    locked: &LockedWorkspace,
    is_new: bool,
    batch: &Batch<'_>,
    op_ids: &[Option<&str>],
    limits: Limits<'_>,
    caller: &Caller,
) -> Result<Reply> {
    let Workspace { key, progress } = locked.workspace;
    let log = &Log::open(key, Access::Write)?;
    let records = &Records::open(key, Access::Write)?;
    let touched = &Touched::by(&batch.ops);
    let push = Push { locked, log, records, ops: &batch.ops, touched, limits, caller };
    let Decided { fates, turns, merged, at, .. } = &push.store()?;

    let versions = log.versions(&locked.snapshot);
    let mut told = Told::new(progress, turns, merged, versions, *at);
    let reply = PushReply::new();
    let reply = reply_to_all(reply, &batch.items, op_ids, fates, |reply, op_id, fate| {
        told.tell(reply, op_id, fate)
    })?;
    if is_new && merged.head == Version::ZERO {
        // It was created for an op that is no longer allowed: its table was
        // unregistered while we waited.
        locked.remove()?;
    }
    Ok(reply.finish(merged.head))
}

/// From here on a batch is worth a subtransaction to save its look-ups, and a
/// look-up to find out whether it is a retry.
const LARGE: usize = 8;

impl<'p, 'a> Push<'p, 'a> {
    fn store(&self) -> Result<Decided<'p, 'a>> {
        let (locked, count) = (self.locked, self.ops.len());
        let mut retry = None;
        if count >= LARGE {
            let head = locked.workspace.progress.head;
            let (log, snapshot) = (self.log, &locked.snapshot);
            retry = Retry::find(log, self.ops, self.touched, head, self.caller, snapshot)?;
            if retry.is_none()
                && Subtransaction::is_cheap()
                && let Some(decided) = self.store_presuming()?
            {
                return Ok(decided);
            }
        }
        let retry = retry.unwrap_or_else(|| Retry::nothing(count, self.touched.keys.len()));
        let Some(decided) = self.decide(retry, Care::LookUp)? else {
            return Err(SyncError::Damaged { what: "The log contradicts itself.".to_owned() });
        };
        self.write(&decided)?;
        self.save(&decided)?;
        Ok(decided)
    }

    /// Stores what is right if the presumptions are; else nothing, and `None`.
    fn store_presuming(&self) -> Result<Option<Decided<'p, 'a>>> {
        let nothing = Retry::nothing(self.ops.len(), self.touched.keys.len());
        let Some(decided) = self.decide(nothing, Care::Presume)? else { return Ok(None) };
        if decided.turns.is_empty() {
            return Ok(Some(decided));
        }
        let subtransaction = Subtransaction::begin();
        if !self.try_to_write(&decided)? {
            subtransaction.roll_back();
            return Ok(None);
        }
        subtransaction.commit();
        self.save(&decided)?;
        Ok(Some(decided))
    }

    /// `None` if a presumption shows to be wrong.
    fn decide(&self, retry: Retry, care: Care) -> Result<Option<Decided<'p, 'a>>> {
        let Push { locked, records, ops, touched, .. } = *self;
        let Retry { logged, registers } = retry;
        let KnownRecords { registers, rows } =
            KnownRecords::read(records, ops, touched, registers, care, &locked.snapshot)?;
        let Some((fates, turns)) = self.fates(&registers, logged, care)? else { return Ok(None) };
        let head = locked.workspace.progress.head;
        if !head.has_room_for(turns.len()) {
            return Err(SyncError::VersionsExhausted { head: head.get() });
        }
        let merged = merge(head, &turns, registers);
        // One reading of the clock, under the lock.
        Ok(Some(Decided { fates, turns, merged, rows, at: server::now() }))
    }

    /// Stores what was looked up; a duplicate would be an error.
    fn write(&self, decided: &Decided<'_, '_>) -> Result<()> {
        let snapshot = &self.locked.snapshot;
        // An error ends the call, so there is nothing else to be told.
        let _ = self.write_new(decided, self.records.writer(snapshot));
        let _ = self.write_log(decided, self.log.writer(snapshot, decided.at));
        self.write_known(decided)
    }

    /// False if a presumption was wrong. What may be a duplicate goes first, so
    /// that rows which are there are not touched before all of it is stored;
    /// and of that new records, as two devices that create the same one are what
    /// happens most.
    fn try_to_write(&self, decided: &Decided<'_, '_>) -> Result<bool> {
        let snapshot = &self.locked.snapshot;
        let is_stored = self.write_new(decided, self.records.lenient_writer(snapshot))
            && self.write_log(decided, self.log.lenient_writer(snapshot, decided.at));
        if is_stored {
            self.write_known(decided)?;
        }
        Ok(is_stored)
    }

    fn write_new(&self, decided: &Decided<'_, '_>, mut writer: RecordWriter<'_>) -> bool {
        for (place, register) in decided.changed() {
            if decided.rows[place].is_none() {
                writer.insert(self.touched.keys[place], register);
            }
        }
        writer.finish()
    }

    fn write_log(&self, decided: &Decided<'_, '_>, mut writer: LogWriter<'_>) -> bool {
        for (turn, decision) in decided.turns.iter().zip(&decided.merged.decisions) {
            writer.append(turn, decision);
        }
        writer.finish()
    }

    fn write_known(&self, decided: &Decided<'_, '_>) -> Result<()> {
        let mut writer = self.records.writer(&self.locked.snapshot);
        for (place, register) in decided.changed() {
            if let Some(row) = decided.rows[place] {
                writer.update(row, self.touched.keys[place], register)?;
            }
        }
        let _ = writer.finish();
        Ok(())
    }

    fn save(&self, decided: &Decided<'_, '_>) -> Result<()> {
        if !decided.turns.is_empty() {
            let progress = self.locked.workspace.progress;
            self.locked.save(Progress { head: decided.merged.head, ..progress })?;
            announce(self.limits.workspace_id, decided);
        }
        Ok(())
    }
}

/// Tells listeners at commit. Everybody may listen, so what is private is left out.
fn announce(workspace_id: &str, decided: &Decided<'_, '_>) {
    let mut changes = match guc::notify() {
        Notify::Off => return,
        Notify::Hint => Changes::Unasked,
        Notify::Changes => Changes::Few(String::new()),
    };
    let entries = decided.turns.iter().zip(&decided.merged.decisions);
    for (turn, decision) in entries.filter(|(turn, _)| turn.owner.is_none()) {
        changes.add(decision.version, decision.applied, decision.overwrote, turn.op);
    }
    notify::at_commit(workspace_id, decided.merged.head, changes);
}

/// Adds a result per item of the batch; items that are one op share its fate.
fn reply_to_all(
    mut reply: PushReply,
    items: &[Item],
    op_ids: &[Option<&str>],
    fates: &[Fate],
    mut tell_stored: impl FnMut(&mut PushReply, Option<&str>, &Fate) -> Result<()>,
) -> Result<PushReply> {
    for (item, op_id) in items.iter().zip(op_ids) {
        server::check_interrupts();
        match item {
            Item::Refused(refusal) => reply.refused(*op_id, refusal)?,
            Item::Op(index) => match &fates[*index] {
                Fate::Refused(refusal) => reply.refused(*op_id, refusal)?,
                stored => tell_stored(&mut reply, *op_id, stored)?,
            },
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
    ] {
        counters::count(counter, by);
    }
}
