//! The columns of `sync_ext.workspace` that say when GC has to look at a workspace.

use super::Result;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::scan::{By, Key};
use super::shape::IndexShape;
use super::workspace::{self, MARKS};
use sync_ext_core::rules::op::Timestamp;

#[derive(Clone, Copy)]
pub enum Mark {
    Unread,
    Pinned,
    Devices,
}

static UNREAD: IndexShape = IndexShape {
    name: c"workspace_unread_since_idx",
    keys: &[MARKS.start],
    is_unique: false,
    not_null: Some(MARKS.start),
};
static PINNED: IndexShape = IndexShape {
    name: c"workspace_pinned_since_idx",
    keys: &[MARKS.start + 1],
    is_unique: false,
    not_null: Some(MARKS.start + 1),
};
static DEVICES: IndexShape = IndexShape {
    name: c"workspace_devices_since_idx",
    keys: &[MARKS.start + 2],
    is_unique: false,
    not_null: None,
};

/// Whether there are any: an update of the extension adds them.
pub fn exist() -> Result<bool> {
    Ok(workspace::has_marks(&Table::open(&workspace::TABLE, Access::Read)?))
}

/// Calls `visit` with the name and the key of each workspace whose mark is at most `until`, the
/// lowest first, until it says false.
pub fn for_each_until(
    mark: Mark,
    until: Timestamp,
    snapshot: &MvccSnapshot,
    mut visit: impl FnMut(&str, i64) -> bool,
) -> Result<()> {
    let index = match mark {
        Mark::Unread => &UNREAD,
        Mark::Pinned => &PINNED,
        Mark::Devices => &DEVICES,
    };
    workspace::walk(index, By::TimeUntil, Key::Time(until), snapshot, |id, workspace| {
        Ok(visit(id, workspace.key))
    })
}
