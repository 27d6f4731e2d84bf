//! What a row trigger is called with.

use std::borrow::Cow;
use std::marker::PhantomData;

use pgrx::pg_sys;

use super::Result;
use super::attached::AttachedTable;
use super::row::RowId;
use super::typed::{RowPlace, read_values};

/// A row of a table, before and after its change.
#[derive(Clone, Copy)]
pub struct RowChange<'c> {
    trigger: *mut pg_sys::TriggerData,
    _call: PhantomData<&'c ()>,
}

impl RowChange<'_> {
    /// `None` unless an AFTER trigger calls for a row.
    ///
    /// # Safety
    /// The context of a call that goes on.
    pub unsafe fn of<'c>(context: *mut pg_sys::Node) -> Option<RowChange<'c>> {
        // SAFETY: a node has a tag; that of a trigger's call is valid while it goes on.
        unsafe {
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return None;
            }
            let trigger = context.cast::<pg_sys::TriggerData>();
            let event = (*trigger).tg_event;
            let is_for_row = event & pg_sys::TRIGGER_EVENT_ROW != 0;
            let is_after = event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
            (is_for_row && is_after).then_some(RowChange { trigger, _call: PhantomData })
        }
    }

    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: the trigger's relation is open.
        unsafe { (*(*self.trigger).tg_relation).rd_id }
    }

    /// Which record the row was, and which it is now.
    pub fn keys<'r>(&self, table: &'r AttachedTable) -> Result<[Option<RowKey<'r>>; 2]>
    where
        Self: 'r,
    {
        // SAFETY: Postgres fills the slots that belong to the event, for the call.
        unsafe {
            let trigger = &*self.trigger;
            let columns = table.columns(trigger.tg_relation)?;
            let key = |slot| {
                read_values(slot);
                let at = RowId((*slot).tts_tid);
                Some(RowKey { pk: columns.pk(slot)?, place: columns.place(table, slot), at })
            };
            Ok(match trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
                pg_sys::TRIGGER_EVENT_INSERT => [None, key(trigger.tg_trigslot)],
                pg_sys::TRIGGER_EVENT_DELETE => [key(trigger.tg_trigslot), None],
                _ => [key(trigger.tg_trigslot), key(trigger.tg_newslot)],
            })
        }
    }
}

/// What names a row.
pub struct RowKey<'r> {
    pub pk: Cow<'r, str>,
    pub place: RowPlace<'r>,
    pub at: RowId,
}
