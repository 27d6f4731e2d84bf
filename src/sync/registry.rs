//! `sync_register_table`, `sync_unregister_table`, `sync_set_scope_field`.

use super::caller::Caller;
use super::{Result, attach};
use crate::store::attach::attachment::relation_name_of;
use crate::store::mvcc::MvccSnapshot;
use crate::store::workspace::Away;
use crate::store::{self, Locked, Oid, Wait, workspace};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::admission::SyncedTable;
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::wire::ids::registry_name;
use sync_ext_core::wire::push_request::{WORKSPACE_FIELD, scope_said};

/// The arguments of a registration, as passed.
pub struct Request<'r> {
    pub table_name: Option<&'r str>,
    pub pk_field: Option<&'r str>,
    pub owner_field: Option<&'r str>,
    pub patches: Option<bool>,
    pub validation: Option<Oid>,
    pub scope_field: Option<&'r str>,
}

pub fn register(request: &Request<'_>) -> Result<()> {
    store::server::require_writable(c"sync_register_table()");
    Caller::require_trusted()?;
    let table_name = registry_name(request.table_name, "table_name")?;
    let pk_field = registry_name(request.pk_field, "pk_field")?;
    let owner_field =
        request.owner_field.map(|field| registry_name(Some(field), "owner_field")).transpose()?;
    if owner_field.is_some_and(|field| field == pk_field || field == WORKSPACE_FIELD) {
        return Err(SyncError::OwnerFieldTaken);
    }
    let scope_field = request.scope_field.map(scope_field_name).transpose()?;
    if scope_field == Some(Some(pk_field)) {
        return Err(SyncError::ScopeFieldTaken);
    }
    let validation = request.validation.map(store::validation::name_of).transpose()?;
    let fields = SyncedTable {
        pk_field: pk_field.to_owned(),
        owner_field: owner_field.map(str::to_owned),
        // Of a registered table it stays as it is.
        scope_field: None,
        patches: request.patches.unwrap_or(false),
    };
    // An old script that registers its table again must not make new private records
    // shared.
    if store::registry::register(table_name, &fields, validation.as_deref())? {
        return match scope_field {
            Some(field) => store::registry::choose_scope_field(table_name, field),
            None => store::registry::check_scope_field(table_name),
        };
    }
    Err(match relation_name_of(table_name)? {
        Some(to) => AttachError::Attached { to }.into(),
        None => SyncError::OwnerFieldKept,
    })
}

/// The field that is asked for; `None` for the empty name, which is no field.
fn scope_field_name(field: &str) -> Result<Option<&str>> {
    match field {
        "" => Ok(None),
        field => registry_name(Some(field), "scope_field").map(Some),
    }
}

/// One step of `sync_set_scope_field`: the first one changes the registry, the second one waits
/// for pushes that go by the old one, each later one brings a workspace to it. Returns the
/// position for the next step; `None` after the last.
pub fn set_scope_field(
    table_name: Option<&str>,
    scope_field: Option<&str>,
    position: Option<i64>,
) -> Result<Option<i64>> {
    store::server::require_writable(c"sync_set_scope_field()");
    Caller::require_trusted()?;
    let table_name = registry_name(table_name, "table_name")?;
    let field = scope_field_name(scope_field.unwrap_or(""))?;
    let Some(position) = position else {
        store::registry::set_scope_field(table_name, field)?;
        return Ok(Some(i64::MIN));
    };
    if position == i64::MIN {
        store::workspace::wait_for_writers()?;
        return Ok(Some(position + 1));
    }
    let snapshot = MvccSnapshot::fresh();
    let mut next = None;
    workspace::for_each_after(position, &snapshot, |id, workspace| {
        // What has departed is not changed any more.
        if workspace.away == Some(Away::Departed) {
            return Ok(true);
        }
        next = Some((id.to_owned(), workspace.key));
        Ok(false)
    })?;
    drop(snapshot);
    let Some((id, key)) = next else { return Ok(None) };
    if let Locked::Row(mut locked) = workspace::lock(&id, Wait::Block)? {
        let key = locked.workspace.key;
        if store::registry::bring_to_scopes(key, table_name, field)? {
            // By the clock: a mere count would come again after a restore, with other scopes.
            let next = locked.workspace.scope_epoch + 1;
            locked.workspace.scope_epoch = store::server::now().max(next);
        }
        let progress = locked.workspace.progress;
        // Without records too: a transaction that still sees the old registry must not push.
        locked.save(progress)?;
    }
    Ok(Some(key))
}

/// `sync_ext.scope_of`: the scope that a payload names.
pub fn scope_of(payload: Option<&str>, field: Option<&str>) -> Option<String> {
    scope_said(payload, field).of_record().map(String::from)
}

/// Does nothing for a name that is not registered, or NULL. An attached table is detached
/// first; one that was dropped has nothing to detach.
pub fn unregister(table_name: Option<&str>) -> Result<()> {
    store::server::require_writable(c"sync_unregister_table()");
    Caller::require_trusted()?;
    match table_name {
        Some(table_name) => {
            store::registry::require_no_scopes(table_name)?;
            attach::release(table_name)?;
            store::registry::unregister(table_name)
        }
        None => Ok(()),
    }
}
