//! `sync_ext.member`: users of workspaces and their roles.

use pgrx::pg_sys;

use super::Result;
use super::mvcc::MvccSnapshot;
use super::relation::{Access, Table};
use super::row::Row;
use super::row_lock;
use super::scan::{By, Key, Scan};
use super::shape::{ColumnType, IndexShape, Shape};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::access::Role;

static TABLE: Shape = Shape {
    name: c"member",
    columns: &[
        ("workspace_id", ColumnType::Text),
        ("user_id", ColumnType::Text),
        ("role", ColumnType::Text),
        ("added_at", ColumnType::Time),
    ],
    first: 4,
};
static BY_WORKSPACE: IndexShape =
    IndexShape { name: c"member_pkey", keys: &[0, 1], is_unique: true, not_null: None };
static BY_USER: IndexShape = IndexShape {
    name: c"member_user_id_workspace_id_idx",
    keys: &[1, 0],
    is_unique: false,
    not_null: None,
};

mod column {
    pub const WORKSPACE_ID: usize = 1;
    pub const USER_ID: usize = 2;
    pub const ROLE: usize = 3;
}

/// The owner of the extension's tables.
pub fn owner() -> Result<pg_sys::Oid> {
    Table::open(&TABLE, Access::Read).map(|table| table.owner())
}

fn role(row: &Row<'_>) -> Result<Role> {
    Role::parse(row.text(column::ROLE)?)
        .ok_or_else(|| SyncError::Damaged { what: "A member has an unknown role.".to_owned() })
}

/// A user's role in a workspace. For a user who is not a member the work is the same
/// whether the workspace exists or not.
pub fn find(workspace_id: &str, user_id: &str, snapshot: &MvccSnapshot) -> Result<Option<Role>> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_WORKSPACE)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Text, By::Text]);
    scan.find(&[Key::Text(workspace_id), Key::Text(user_id)]).map(|row| role(&row)).transpose()
}

/// Calls `visit` with each workspace of a user after a name, in byte order, and their role,
/// until it says false.
pub fn for_each_of(
    user_id: &str,
    after: &str,
    snapshot: &MvccSnapshot,
    mut visit: impl FnMut(&str, Role) -> Result<bool>,
) -> Result<()> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_USER)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Text, By::TextAfter]);
    scan.seek(&[Key::Text(user_id), Key::Text(after)]);
    while let Some(row) = scan.next() {
        if !visit(row.text(column::WORKSPACE_ID)?, role(&row)?)? {
            break;
        }
    }
    Ok(())
}

/// Calls `visit` with each member of a workspace, in byte order, and their role.
pub fn for_each_in(
    workspace_id: &str,
    snapshot: &MvccSnapshot,
    mut visit: impl FnMut(&str, Role) -> Result<()>,
) -> Result<()> {
    let table = Table::open(&TABLE, Access::Read)?;
    let index = table.index(&BY_WORKSPACE)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Text]);
    scan.seek(&[Key::Text(workspace_id)]);
    while let Some(row) = scan.next() {
        visit(row.text(column::USER_ID)?, role(&row)?)?;
    }
    Ok(())
}

/// Whether the workspace has an owner besides this user. Its lock must be held, so that
/// members do not change.
pub fn has_other_owner(workspace_id: &str, user_id: &str, snapshot: &MvccSnapshot) -> Result<bool> {
    let mut has_other = false;
    for_each_in(workspace_id, snapshot, |user, role| {
        has_other |= role == Role::Owner && user != user_id;
        Ok(())
    })?;
    Ok(has_other)
}

/// Makes a user a member, or changes their role.
pub fn set(workspace_id: &str, user_id: &str, role: Role) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "insert into sync_ext.member (workspace_id, user_id, role) values ($1, $2, $3) \
               on conflict (workspace_id, user_id) do update set role = excluded.role";
    table.execute(sql, &[workspace_id.into(), user_id.into(), role.as_str().into()]).map(|_| ())
}

pub fn remove(workspace_id: &str, user_id: &str) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    let sql = "delete from sync_ext.member where workspace_id = $1 and user_id = $2";
    table.execute(sql, &[workspace_id.into(), user_id.into()]).map(|_| ())
}

/// Removes all members of a locked workspace that is being dropped.
pub fn remove_all(workspace_id: &str, snapshot: &MvccSnapshot) -> Result<()> {
    let table = Table::open(&TABLE, Access::Write)?;
    let index = table.index(&BY_WORKSPACE)?;
    let mut scan = Scan::new(&table, &index, snapshot, &[By::Text]);
    scan.seek(&[Key::Text(workspace_id)]);
    while let Some(row) = scan.next().map(|row| row.id()) {
        row_lock::delete(&table, row, snapshot)?;
    }
    Ok(())
}

/// Keeps a user a member until this transaction ends, as a foreign key would; false if
/// the user is not a member. Removing the member waits.
pub fn pin(workspace_id: &str, user_id: &str) -> Result<bool> {
    let table = Table::open(&TABLE, Access::Read)?;
    let sql = "select from sync_ext.member where workspace_id = $1 and user_id = $2 for key share";
    Ok(table.execute(sql, &[workspace_id.into(), user_id.into()])? == 1)
}
