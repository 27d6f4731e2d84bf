//! The triggers of attached tables.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::OwnTable;
use crate::store::rights::Rights;
use crate::store::{Result, compat, member};

/// A trigger and its function. docs/own-tables.md and the view `attached_table` know the
/// names.
struct Trigger {
    name: &'static CStr,
    function: &'static CStr,
    is_for_each_row: bool,
    timing: u32,
    events: u32,
}

const TRIGGERS: [Trigger; 2] = [
    Trigger {
        name: c"sync_ext_capture",
        function: c"sync_ext.capture",
        is_for_each_row: true,
        timing: pg_sys::TRIGGER_TYPE_AFTER,
        events: pg_sys::TRIGGER_TYPE_INSERT
            | pg_sys::TRIGGER_TYPE_UPDATE
            | pg_sys::TRIGGER_TYPE_DELETE,
    },
    Trigger {
        name: c"sync_ext_truncate",
        function: c"sync_ext.refuse_truncate",
        is_for_each_row: false,
        timing: pg_sys::TRIGGER_TYPE_BEFORE,
        events: pg_sys::TRIGGER_TYPE_TRUNCATE,
    },
];

impl OwnTable {
    /// Makes the triggers, as the table's owner would by CREATE TRIGGER; but the owner
    /// needs no right on schema sync_ext, nor the caller one on the table's schema.
    pub fn create_triggers(&self) -> Result<()> {
        for trigger in &TRIGGERS {
            let function = {
                let _rights = Rights::of(member::owner()?);
                compat::trigger_function(trigger.function)
            };
            let _rights = Rights::of(self.owner);
            // SAFETY: zeros are a valid statement, which becomes one with a name. The
            // statement and its strings live until the call returns; the relation and the
            // function exist, and the relation is locked as the call demands.
            unsafe {
                let mut statement = pg_sys::CreateTrigStmt {
                    type_: pg_sys::NodeTag::T_CreateTrigStmt,
                    trigname: trigger.name.as_ptr().cast_mut(),
                    row: trigger.is_for_each_row,
                    timing: trigger.timing as i16,
                    events: trigger.events as i16,
                    ..Default::default()
                };
                pg_sys::CreateTrigger(
                    &mut statement,
                    c"".as_ptr(),
                    self.oid,
                    pg_sys::InvalidOid,
                    pg_sys::InvalidOid,
                    pg_sys::InvalidOid,
                    function,
                    pg_sys::InvalidOid,
                    std::ptr::null_mut(),
                    false,
                    false,
                );
                pg_sys::CommandCounterIncrement();
            }
        }
        Ok(())
    }

    /// Drops those that are there: somebody may have dropped one.
    pub fn drop_triggers(&self) {
        for trigger in &TRIGGERS {
            // SAFETY: look-ups by oid and name; the address is that of a trigger. The
            // table is locked as the deletion demands.
            unsafe {
                let oid = pg_sys::get_trigger_oid(self.oid, trigger.name.as_ptr(), true);
                if oid == pg_sys::InvalidOid {
                    continue;
                }
                let address = pg_sys::ObjectAddress {
                    classId: pg_sys::TriggerRelationId,
                    objectId: oid,
                    objectSubId: 0,
                };
                pg_sys::performDeletion(&address, pg_sys::DropBehavior::DROP_RESTRICT, 0);
                pg_sys::CommandCounterIncrement();
            }
        }
    }
}
