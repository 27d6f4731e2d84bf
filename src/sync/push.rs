//! `sync_push`: store a batch of ops and decide conflicts.

use std::collections::HashMap;

use super::Result;
use crate::error::SyncError;
use crate::guc;
use crate::rules::admission::{Limits, admit};
use crate::rules::batch::{Batch, Item};
use crate::rules::history::Progress;
use crate::rules::merge::{Merge, Register, Turn, merge};
use crate::rules::op::{Op, RecordKey, Timestamp, Version};
use crate::rules::refusal::Refusal;
use crate::store::log::{Log, Versions};
use crate::store::record::Records;
use crate::store::registry::Registry;
use crate::store::snapshot::Snapshot;
use crate::store::workspace::{self, LockedWorkspace, Workspace};
use crate::store::{Access, Locked, RowId, Wait, server};
use crate::wire::ids::WorkspaceId;
use crate::wire::push_reply::{PushReply, Winner};
use crate::wire::push_request::{parse, payload_claims, same_payload};

pub fn push(workspace_id: Option<&str>, ops: Option<&str>) -> Result<String> {
    server::require_writable(c"sync_push()");
    let workspace_id = WorkspaceId::new(workspace_id)?.as_str();
    let items = parse(ops.ok_or(SyncError::OpsNotAnArray)?, guc::max_ops_per_push())?;
    let (op_ids, parsed): (Vec<_>, Vec<_>) =
        items.into_iter().map(|item| (item.op_id, item.op)).unzip();
    let batch = Batch::gather(parsed, same_payload);
    let limits = Limits { workspace_id, max_payload_bytes: guc::max_payload_bytes() };
    let reply = match lock_or_create(&batch.ops, limits)? {
        Turnout::Locked(locked) => {
            let reply = push_locked(&locked, &batch, &op_ids, limits)?;
            drop(locked);
            server::end_command();
            reply
        }
        Turnout::NothingToStore(fates) => {
            let snapshot = Snapshot::fresh();
            let known = workspace::find(workspace_id, &snapshot)?;
            let head = known.map_or(Version::ZERO, |workspace| workspace.progress.head);
            let reply = PushReply::new(op_ids.len());
            reply_to_all(reply, &batch.items, &op_ids, &fates, |_, _, _| Ok(()))?.finish(head)
        }
    };
    Ok(reply)
}

/// What became of one of the batch's distinct ops.
enum Fate {
    Refused(Refusal),
    /// It takes a version: the n-th turn of the merge.
    New(usize),
    /// It is in the log already; its record is the n-th of [`Touched`].
    Replay {
        version: Version,
        record: usize,
    },
}

enum Turnout {
    Locked(LockedWorkspace),
    /// No op can be accepted: there is nothing to lock or create.
    NothingToStore(Vec<Fate>),
}

/// The workspace, locked; created if it is unknown and the batch has an op
/// that will be accepted.
fn lock_or_create(ops: &[Op<'_>], limits: Limits<'_>) -> Result<Turnout> {
    if ops.is_empty() {
        return Ok(Turnout::NothingToStore(Vec::new()));
    }
    loop {
        if let Locked::Row(locked) = workspace::lock(limits.workspace_id, Wait::Block)? {
            return Ok(Turnout::Locked(locked));
        }
        let snapshot = Snapshot::fresh();
        let mut registry = Registry::open()?;
        let mut refused = Vec::new();
        for op in ops {
            if let Err(refusal) = check(op, limits, &mut registry, &snapshot)? {
                refused.push(Fate::Refused(refusal));
            }
        }
        if refused.len() == ops.len() {
            return Ok(Turnout::NothingToStore(refused));
        }
        // Afterwards it exists, whoever created it, and can be locked.
        workspace::create(limits.workspace_id)?;
    }
}

/// Today's rules for one op.
fn check(
    op: &Op<'_>,
    limits: Limits<'_>,
    registry: &mut Registry,
    snapshot: &Snapshot,
) -> Result<std::result::Result<(), Refusal>> {
    let pk_field = registry.pk_field(&op.key.table, snapshot)?;
    Ok(admit(op, pk_field, limits, |payload, pk_field| {
        payload_claims(payload, pk_field, &op.key.pk, limits.workspace_id)
    }))
}

/// The records that a batch touches, each once.
#[derive(Default)]
struct Touched<'b, 'a> {
    places: HashMap<&'b RecordKey<'a>, usize>,
    keys: Vec<&'b RecordKey<'a>>,
}

impl<'b, 'a> Touched<'b, 'a> {
    fn place(&mut self, key: &'b RecordKey<'a>) -> usize {
        *self.places.entry(key).or_insert_with(|| {
            self.keys.push(key);
            self.keys.len() - 1
        })
    }
}

fn push_locked(
    locked: &LockedWorkspace,
    batch: &Batch<'_>,
    op_ids: &[Option<&str>],
    limits: Limits<'_>,
) -> Result<String> {
    let Workspace { key, progress } = locked.workspace;
    let log = Log::open(key, Access::Write)?;
    let records = Records::open(key, Access::Write)?;
    let mut touched = Touched::default();
    let mut turns = Vec::new();
    let fates = decide_fates(locked, &log, &batch.ops, limits, &mut touched, &mut turns)?;
    let (registers, rows) = read_records(locked, &records, &touched)?;
    let merged = merge(progress.head, &turns, registers);
    // One reading of the clock, under the lock.
    let now = server::now();
    if !turns.is_empty() {
        write(locked, (&log, &records), &turns, &merged, (&touched, &rows), now)?;
    }

    let mut told = Told {
        before: progress,
        turns: &turns,
        merged: &merged,
        versions: log.versions(&locked.snapshot),
        now,
    };
    let reply = PushReply::new(op_ids.len());
    let reply = reply_to_all(reply, &batch.items, op_ids, &fates, |reply, op_id, fate| {
        told.tell(reply, op_id, fate)
    })?;
    Ok(reply.finish(merged.head))
}

/// Replays, conflicts with the log, refusals; what is left gets a turn.
fn decide_fates<'b, 'a>(
    locked: &LockedWorkspace,
    log: &Log,
    ops: &'b [Op<'a>],
    limits: Limits<'_>,
    touched: &mut Touched<'b, 'a>,
    turns: &mut Vec<Turn<'b, 'a>>,
) -> Result<Vec<Fate>> {
    let logged = find_logged(locked, log, ops)?;
    let mut registry = Registry::open()?;
    let mut fates = Vec::with_capacity(ops.len());
    for (op, logged) in ops.iter().zip(logged) {
        fates.push(if let Some((version, same)) = logged {
            if same {
                Fate::Replay { version, record: touched.place(&op.key) }
            } else {
                Fate::Refused(Refusal::ConflictWithLog)
            }
        } else if let Err(refusal) = check(op, limits, &mut registry, &locked.snapshot)? {
            Fate::Refused(refusal)
        } else {
            turns.push(Turn { op, record: touched.place(&op.key) });
            Fate::New(turns.len() - 1)
        });
    }
    Ok(fates)
}

/// For each op whose opId is in the log: its version there, and whether it is
/// the same op. Looked up in the order of the index, so that neighbours in it
/// are found on pages that are at hand.
fn find_logged(
    locked: &LockedWorkspace,
    log: &Log,
    ops: &[Op<'_>],
) -> Result<Vec<Option<(Version, bool)>>> {
    let mut logged = log.op_ids(&locked.snapshot);
    let mut found = vec![None; ops.len()];
    for place in in_order(ops, Op::op_id) {
        let op = &ops[place];
        if let Some(entry) = logged.find(op.op_id()) {
            found[place] = Some((entry.version()?, op.same_content(&entry.op()?, same_payload)));
        }
    }
    Ok(found)
}

/// The places of `items` in ascending order of their keys.
fn in_order<'i, T, K: Ord>(items: &'i [T], key: impl Fn(&'i T) -> K) -> Vec<usize> {
    let mut places: Vec<usize> = (0..items.len()).collect();
    places.sort_unstable_by_key(|place| key(&items[*place]));
    places
}

type StoredRecords = (Vec<Option<Register<'static>>>, Vec<Option<RowId>>);

/// The registers of the touched records, and where they are stored.
fn read_records(
    locked: &LockedWorkspace,
    records: &Records,
    touched: &Touched<'_, '_>,
) -> Result<StoredRecords> {
    let mut names = records.names(&locked.snapshot);
    let mut registers = vec![None; touched.keys.len()];
    let mut rows = vec![None; touched.keys.len()];
    for place in in_order(&touched.keys, |key| *key) {
        let key = touched.keys[place];
        if let Some(record) = names.find(&key.table, &key.pk) {
            rows[place] = Some(record.id());
            registers[place] = Some(record.into_register()?);
        }
    }
    Ok((registers, rows))
}

fn write(
    locked: &LockedWorkspace,
    (log, records): (&Log, &Records),
    turns: &[Turn<'_, '_>],
    merged: &Merge<'_>,
    (touched, rows): (&Touched<'_, '_>, &[Option<RowId>]),
    now: Timestamp,
) -> Result<()> {
    let mut writer = log.writer(&locked.snapshot, now);
    for (turn, decision) in turns.iter().zip(&merged.decisions) {
        writer.append(turn.op, decision);
    }
    writer.finish();

    let mut writer = records.writer(&locked.snapshot);
    for place in in_order(&touched.keys, |key| *key) {
        if let (true, Some(register)) = (merged.changed[place], &merged.registers[place]) {
            writer.write(touched.keys[place], register, rows[place]);
        }
    }
    writer.finish();

    locked.save(Progress { head: merged.head, ..locked.workspace.progress });
    Ok(())
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
        match item {
            Item::Refused(refusal) => reply.refused(*op_id, refusal),
            Item::Op(index) => match &fates[*index] {
                Fate::Refused(refusal) => reply.refused(*op_id, refusal),
                stored => tell_stored(&mut reply, *op_id, stored)?,
            },
        }
        reply.check_size()?;
    }
    Ok(reply)
}

/// What is told about stored ops: winners as they are at the end of the call.
struct Told<'t, 'b, 'a> {
    before: Progress,
    turns: &'t [Turn<'b, 'a>],
    merged: &'t Merge<'a>,
    versions: Versions<'t>,
    now: Timestamp,
}

impl Told<'_, '_, '_> {
    fn tell(&mut self, reply: &mut PushReply, op_id: Option<&str>, fate: &Fate) -> Result<()> {
        let (version, record, applied, replayed) = match *fate {
            Fate::Refused(_) => return Ok(()),
            Fate::New(turn) => {
                let decision = &self.merged.decisions[turn];
                (decision.version, self.turns[turn].record, decision.applied, false)
            }
            Fate::Replay { version, record } => {
                let register = self.merged.registers[record].as_ref();
                let wins = register.is_some_and(|register| register.version == version);
                (version, record, wins, true)
            }
        };
        if applied {
            reply.stored(op_id, version, applied, replayed, None);
            return Ok(());
        }
        let Some(register) = &self.merged.registers[record] else {
            return Err(SyncError::Damaged { what: "A logged op has no record.".to_owned() });
        };
        self.with_winner(register, |winner| {
            reply.stored(op_id, version, applied, replayed, Some(winner));
        })
    }

    fn with_winner(
        &mut self,
        register: &Register<'_>,
        tell: impl FnOnce(&Winner<'_>),
    ) -> Result<()> {
        let (version, revision) = (register.version, register.revision.clone());
        if version > self.before.head {
            let turn = (version.get() - self.before.head.get() - 1) as usize;
            tell(&match self.turns[turn].op.payload {
                Some(payload) if !register.deleted => Winner::Put { version, revision, payload },
                _ => Winner::Delete { version, revision, deleted_at: Some(self.now) },
            });
            return Ok(());
        }
        let entry = self.versions.find(version);
        tell(&match entry {
            None if !register.deleted => {
                return Err(SyncError::Damaged {
                    what: format!("The log has no entry {}, of a live record.", version.get()),
                });
            }
            None => Winner::Delete { version, revision, deleted_at: None },
            Some(entry) if register.deleted => {
                Winner::Delete { version, revision, deleted_at: Some(entry.created_at()?) }
            }
            Some(entry) => {
                Winner::Put { version, revision, payload: entry.payload()?.unwrap_or("null") }
            }
        });
        Ok(())
    }
}
