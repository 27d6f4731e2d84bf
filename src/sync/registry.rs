//! `sync_register_table`, `sync_unregister_table`.

use super::caller::Caller;
use super::{Result, attach};
use crate::store::attach::attachment::relation_name_of;
use crate::store::{self, Oid};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::admission::SyncedTable;
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::wire::ids::registry_name;
use sync_ext_core::wire::push_request::WORKSPACE_FIELD;

pub fn register(
    table_name: Option<&str>,
    pk_field: Option<&str>,
    owner_field: Option<&str>,
    patches: Option<bool>,
    validation: Option<Oid>,
) -> Result<()> {
    store::server::require_writable(c"sync_register_table()");
    Caller::require_trusted()?;
    let table_name = registry_name(table_name, "table_name")?;
    let pk_field = registry_name(pk_field, "pk_field")?;
    let owner_field =
        owner_field.map(|field| registry_name(Some(field), "owner_field")).transpose()?;
    if owner_field.is_some_and(|field| field == pk_field || field == WORKSPACE_FIELD) {
        return Err(SyncError::OwnerFieldTaken);
    }
    let validation = validation.map(store::validation::name_of).transpose()?;
    let fields = SyncedTable {
        pk_field: pk_field.to_owned(),
        owner_field: owner_field.map(str::to_owned),
        patches: patches.unwrap_or(false),
    };
    // An old script that registers its table again must not make new private records
    // shared.
    if store::registry::register(table_name, &fields, validation.as_deref())? {
        return Ok(());
    }
    Err(match relation_name_of(table_name)? {
        Some(to) => AttachError::Attached { to }.into(),
        None => SyncError::OwnerFieldKept,
    })
}

/// Does nothing for a name that is not registered, or NULL. An attached table is detached
/// first; one that was dropped has nothing to detach.
pub fn unregister(table_name: Option<&str>) -> Result<()> {
    store::server::require_writable(c"sync_unregister_table()");
    Caller::require_trusted()?;
    match table_name {
        Some(table_name) => {
            attach::release(table_name)?;
            store::registry::unregister(table_name)
        }
        None => Ok(()),
    }
}
