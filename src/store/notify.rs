//! Telling listeners of a commit: once for each workspace that a transaction has pushed to.
//!
//! What is to be told is kept until the transaction ends. Where a worker serves the
//! database, hints are posted for it after the commit. Everything else is passed to
//! Postgres immediately before the commit: after everything of this extension that may
//! fail, because a notification takes a lock for all databases that is held until the
//! commit is done. A rolled-back savepoint removes what it was to tell.

use std::cell::RefCell;

use pgrx::{IntoDatum, direct_function_call, pg_guard, pg_sys};

use super::notifier;
use sync_ext_core::rules::op::Version;
use sync_ext_core::wire::notice::{Changes, payload};

struct Pending {
    /// The (sub)transaction that pushed.
    by: pg_sys::SubTransactionId,
    channel: String,
    workspace_id: String,
    head: Version,
    changes: Changes,
}

thread_local! {
    static PENDING: RefCell<Vec<Pending>> = const { RefCell::new(Vec::new()) };
}

/// Sends `workspace_id` and `head` when this transaction commits.
pub fn at_commit(channel: String, workspace_id: &str, head: Version, changes: Changes) {
    // SAFETY: reads a variable of this backend.
    let by = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let workspace_id = workspace_id.to_owned();
    let later = Pending { by, channel, workspace_id, head, changes };
    PENDING.with_borrow_mut(|pending| add(pending, later));
}

/// One for each workspace and (sub)transaction, in the order of their first pushes.
fn add(pending: &mut Vec<Pending>, later: Pending) {
    let same = |one: &&mut Pending| {
        one.by == later.by && one.workspace_id == later.workspace_id && one.channel == later.channel
    };
    match pending.iter_mut().find(same) {
        Some(one) => {
            one.head = later.head;
            one.changes.append(later.changes);
        }
        None => pending.push(later),
    }
}

/// Registers callbacks for the end of transactions. Once per backend.
pub fn init() {
    // SAFETY: the callbacks have the required signatures and live as long as the
    // library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction), std::ptr::null_mut());
    }
}

/// # Safety
/// Called by Postgres.
#[pg_guard]
unsafe extern "C-unwind" fn at_transaction(
    event: pg_sys::XactEvent::Type,
    _arg: *mut core::ffi::c_void,
) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_PRE_COMMIT => PENDING.with_borrow_mut(|pending| pending.retain(is_for_later)),
        XACT_EVENT_COMMIT => {
            for one in PENDING.take() {
                notifier::post(&one.channel, &one.workspace_id, one.head);
            }
        }
        // A prepared transaction cannot notify; otherwise Postgres would refuse to
        // prepare it.
        XACT_EVENT_PRE_PREPARE | XACT_EVENT_ABORT => PENDING.with_borrow_mut(Vec::clear),
        _ => {}
    }
}

/// # Safety
/// Called by Postgres.
#[pg_guard]
unsafe extern "C-unwind" fn at_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    this: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut core::ffi::c_void,
) {
    use pg_sys::SubXactEvent::*;
    PENDING.with_borrow_mut(|pending| match event {
        SUBXACT_EVENT_COMMIT_SUB => {
            // Those of a subtransaction follow those of its parent.
            let first = pending.iter().position(|one| one.by == this).unwrap_or(pending.len());
            for one in pending.split_off(first) {
                add(pending, Pending { by: parent, ..one });
            }
        }
        SUBXACT_EVENT_ABORT_SUB => pending.retain(|one| one.by != this),
        _ => {}
    });
}

/// Whether a hint can be posted after the commit. Else Postgres is told now.
fn is_for_later(one: &Pending) -> bool {
    if one.changes == Changes::Unasked {
        if notifier::is_served(&one.channel) {
            return true;
        }
        notifier::want();
    }
    send(&one.channel, &payload(&one.workspace_id, one.head, &one.changes));
    false
}

/// In a transaction.
pub(super) fn send(channel: &str, payload: &str) {
    // SAFETY: pg_notify takes two texts; Postgres processes the notifications of a
    // transaction after the callbacks before its commit.
    unsafe {
        direct_function_call::<()>(
            pg_sys::pg_notify,
            &[channel.into_datum(), payload.into_datum()],
        );
    }
}
