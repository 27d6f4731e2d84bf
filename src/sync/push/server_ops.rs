//! Ops that the server makes: `sync_put`, `sync_patch` and `sync_delete`.
//!
//! Their stamps depend on their records, so the workspace is locked first, then the
//! records are read, and the ops are stamped and stored as they were found.

use std::ffi::CStr;
use std::slice;

use super::held::Held;
use super::known::{Known, Logged};
use super::winners::Winners;
use super::{Care, Outcome, Push, Result, Target, applying, count, decide, limits_of};
use crate::apply::Tables;
use crate::guc;
use crate::store::log::Log;
use crate::store::mvcc::MvccSnapshot;
use crate::store::record::Records;
use crate::store::workspace::LockedWorkspace;
use crate::store::{Access, Duplicates, memory, server};
use crate::sync::caller::{Caller, Permit};
use sync_ext_core::rules::access::Action;
use sync_ext_core::rules::admission::Limits;
use sync_ext_core::rules::op::{Op, Operation, Version};
use sync_ext_core::rules::refusal::Refusal;
use sync_ext_core::rules::server_op::stamp;
use sync_ext_core::wire::push_reply::PushReply;
use sync_ext_core::wire::push_request::{MEMORY_FOR_ITEM, memory_for};
use sync_ext_core::wire::reply::Reply;
use sync_ext_core::wire::write_request::{Arguments, read};

/// Returns the op's item.
pub fn write<'a>(
    operation: Operation,
    workspace_id: Option<&str>,
    arguments: impl FnOnce() -> Arguments<'a>,
) -> Result<Reply> {
    server::require_writable(function(operation));
    let permit = Permit::now(Action::Push, workspace_id)?;
    let arguments = arguments();
    memory::require(MEMORY_FOR_ITEM + arguments.payload.map_or(0, memory_for))?;
    let op_id = server::new_op_id();
    let shown_id = format!("\"{op_id}\"");
    let written = match read(operation, arguments, op_id) {
        Ok(op) => store(&permit, &shown_id, op)?,
        Err(refusal) => Err(refusal),
    };
    match written {
        Ok(reply) => Ok(reply),
        Err(refusal) => {
            permit.renew(&MvccSnapshot::fresh())?;
            let mut reply = PushReply::begin_single();
            reply.refused(Some(&shown_id), &refusal, None)?;
            count(&reply.tally);
            Ok(reply.finish_single())
        }
    }
}

fn function(operation: Operation) -> &'static CStr {
    match operation {
        Operation::Put => c"sync_put()",
        Operation::Patch => c"sync_patch()",
        Operation::Delete => c"sync_delete()",
    }
}

/// The reply, or why the op cannot be accepted: then nothing was locked or created.
fn store(
    permit: &Permit<'_>,
    shown_id: &str,
    op: Op<'_>,
) -> Result<std::result::Result<Reply, Refusal>> {
    let limits = limits_of(permit);
    let ops = slice::from_ref(&op);
    applying(ops, |tables, since| {
        let refuse = || {
            let refusals = decide::refuse_all(ops, limits, &permit.caller, tables)?;
            Ok(refusals.and_then(|refusals| refusals.into_iter().next()))
        };
        let mut held = match Held::lock(permit.workspace_id, refuse)? {
            Ok(held) => held,
            Err(refusal) => return Ok(Err(refusal)),
        };
        permit.renew(&held.locked.snapshot)?;
        since.require_same(ops, tables)?;
        held.capture(tables)?;
        let target = (&held.locked, limits, &permit.caller, tables);
        let (reply, head) = write_to(target, shown_id, op.clone())?;
        held.finish(head, tables)?;
        Ok(Ok(reply))
    })
}

/// Returns the reply, and the head afterwards.
fn write_to(
    (locked, limits, caller, tables): (&LockedWorkspace, Limits<'_>, &Caller, Option<&Tables>),
    shown_id: &str,
    mut op: Op<'_>,
) -> Result<(Reply, Version)> {
    let key = locked.workspace.key;
    let (log, records) = (Log::open(key, Access::Write)?, Records::open(key, Access::Write)?);
    let target = Target { locked, log: &log, records: &records, limits, caller, tables };
    let known = target.known().read(&op.key)?;
    stamp(&mut op, known.state.as_ref(), server::next_hlc(guc::server_hlc()));
    let ops = [op];
    let mut push = Push::of_server_ops(target, &ops, vec![known]);
    match tables {
        None => push.store_server_ops()?,
        Some(tables) => push.store_applied(tables)?,
    }
    push.announce()?;
    let mut reply = PushReply::begin_single();
    Winners::of(&push).reply(&mut reply, Some(shown_id), 0)?;
    count(&reply.tally);
    Ok((reply.finish_single(), push.head))
}

impl<'p> Push<'p> {
    /// Stamped ops, each of another record, which is `known` as read under the lock.
    fn of_server_ops(target: Target<'p>, ops: &'p [Op<'p>], known: Vec<Known>) -> Push<'p> {
        let mut push = Push::of(target, ops);
        for (pushed, known) in push.ops.iter_mut().zip(known) {
            // Its opId is new.
            pushed.outcome = Outcome::Undecided(Logged::No);
            let record = &mut push.touched[pushed.record];
            (record.row, record.state) = (known.row, known.state);
        }
        push
    }

    /// Nothing has to be looked up.
    fn store_server_ops(&mut self) -> Result<()> {
        let versions = &mut self.target.log.versions(&self.target.locked.snapshot);
        let _ = self.take_turns(Care::LookUp, versions)?;
        let _ = self.write(Duplicates::Raise)?;
        Ok(())
    }
}
