//! Functions of the app that may reject ops, see `sync_register_table`.
//!
//! A session's role may have fewer rights than such a function needs, and need not be the
//! author of the ops that it pushes. So it runs with the rights of its owner, who must be
//! allowed everything anyway, and finds names as in a SECURITY DEFINER function with SET
//! search_path.
//!
//! It is stored by its name: pg_upgrade refuses tables that refer to functions by oid.

use std::cell::OnceCell;

use pgrx::pg_sys;

use super::Result;
use super::arena::Arena;
use super::functions::{Function, Prepared};
use super::rights::{self, Rights};
use super::values::{text_datum, text_of};
use sync_ext_core::error::SyncError;
use sync_ext_core::rules::refusal::Refusal;

/// The validation function of a table.
pub struct Validation {
    name: String,
    /// Looked up by the first call, for the others of a batch.
    found: OnceCell<(Prepared, pg_sys::Oid)>,
}

/// The name of a function that a table may have, as it is stored; an error for others.
pub fn name_of(function: pg_sys::Oid) -> Result<String> {
    let function = Function::of(function).ok_or(SyncError::Validation)?;
    require_trusted(function)?;
    Ok(function.name())
}

fn require_trusted(function: Function) -> Result<()> {
    if rights::is_trusted(function.owner)? { Ok(()) } else { Err(SyncError::ValidationOwner) }
}

impl Validation {
    pub fn named(name: &str) -> Validation {
        Validation { name: name.to_owned(), found: OnceCell::new() }
    }

    /// Why it rejects an op, given as JSON; `None` if it does not. `payload` is the
    /// record as it would be, `previous` as it is.
    pub fn refusal(
        &self,
        payload: Option<&str>,
        previous: Option<&str>,
        op: &str,
    ) -> Result<Option<Refusal>> {
        let (function, owner) = match self.found.get() {
            Some(found) => found,
            None => {
                let found = self.find()?;
                self.found.get_or_init(|| found)
            }
        };
        let values = Arena::new();
        let arguments =
            [payload, previous, Some(op)].map(|text| text.map(|text| text_datum(&values, text)));
        let rights = Rights::of(*owner);
        // SAFETY: json and text have the same layout, and `values` outlives the call.
        let reason = unsafe { values.enter(|| function.call(arguments)) };
        drop(rights);
        let Some(reason) = reason else { return Ok(None) };
        // SAFETY: a text in `values`, or a constant of the function; both live on.
        let reason = unsafe {
            text_of(reason, |packed| values.enter(|| pg_sys::pg_detoast_datum_packed(packed)))
        };
        Ok(Some(Refusal::rejected(reason)))
    }

    /// Checks it again: it may have been dropped, altered or given to somebody else since
    /// the table was registered.
    fn find(&self) -> Result<(Prepared, pg_sys::Oid)> {
        let function = Function::named(&self.name)
            .ok_or_else(|| SyncError::ValidationGone { name: self.name.clone() })?;
        require_trusted(function)?;
        Ok((function.prepare(), function.owner))
    }
}
