//! `sync_register_table`, `sync_unregister_table`.

use super::Result;
use crate::store;
use crate::wire::ids::registry_name;

pub fn register(table_name: Option<&str>, pk_field: Option<&str>) -> Result<()> {
    store::server::require_writable(c"sync_register_table()");
    let table_name = registry_name(table_name, "table_name")?;
    let pk_field = registry_name(pk_field, "pk_field")?;
    store::registry::register(table_name, pk_field)
}

/// A name that is not registered, or NULL, does nothing.
pub fn unregister(table_name: Option<&str>) -> Result<()> {
    store::server::require_writable(c"sync_unregister_table()");
    match table_name {
        Some(table_name) => store::registry::unregister(table_name),
        None => Ok(()),
    }
}
