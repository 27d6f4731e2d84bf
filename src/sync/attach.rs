//! `sync_attach_table`, `sync_detach_table`.

use std::ffi::CString;

use pgrx::pg_sys;

use super::Result;
use super::caller::Caller;
use crate::store;
use crate::store::attach::{OwnTable, Purpose, attachment};
use sync_ext_core::rules::attach_error::AttachError;
use sync_ext_core::rules::attached::{Candidate, Request};
use sync_ext_core::wire::columns;

/// The arguments that are not in the [`Request`] of the rules.
pub struct Given<'a> {
    pub table: Option<pg_sys::Oid>,
    /// jsonb, as text.
    pub columns: Option<&'a str>,
    pub apply_search_path: Option<&'a str>,
}

pub fn attach(given: &Given<'_>, request: Request<'_>) -> Result<()> {
    store::server::require_writable(c"sync_attach_table()");
    Caller::require_trusted()?;
    let table = given.table.ok_or(AttachError::NullTable)?;
    let columns = given.columns.map(columns::read).transpose()?;
    let request = Request { columns, ..request };
    let apply_search_path = search_path(given.apply_search_path);
    let own = OwnTable::lock(table, Purpose::Attach)?;
    let relation = own.facts()?;
    let candidate = Candidate { relation: &relation, request: &request };
    let attachment = candidate.decide()?;
    let fields = columns::write(&attachment.fields);
    attachment::store(&own, &attachment, &fields, &apply_search_path)?;
    own.create_triggers()?;
    candidate.notices(&attachment, &own.surroundings()?).iter().for_each(store::attach::report);
    Ok(())
}

/// The given one, or else the session's: user triggers find names by it.
fn search_path(given: Option<&str>) -> String {
    let Some(path) = given else { return store::attach::search_path() };
    // A text of Postgres has no NUL.
    store::attach::check_search_path(&CString::new(path).unwrap_or_default());
    path.to_owned()
}

pub fn detach(table: Option<pg_sys::Oid>) -> Result<()> {
    store::server::require_writable(c"sync_detach_table()");
    Caller::require_trusted()?;
    let table = table.ok_or(AttachError::NullTable)?;
    let own = OwnTable::lock(table, Purpose::Detach)?;
    if !attachment::clear(own.oid())? {
        return Err(AttachError::NotAttached.into());
    }
    own.drop_triggers();
    Ok(())
}

/// Drops the triggers of the table that is attached under a name, if there is one, and
/// makes it a JSON table.
pub fn release(table_name: &str) -> Result<()> {
    let Some(relation) = attachment::relation_of(table_name)? else { return Ok(()) };
    if store::attach::exists(relation) {
        OwnTable::lock(relation, Purpose::Detach)?.drop_triggers();
    }
    attachment::clear(relation).map(|_| ())
}
