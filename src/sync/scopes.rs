//! Readers that follow a part of a workspace.

use super::Result;
use crate::store::entry::Texts;
use crate::store::log::Entry;
use crate::store::mvcc::MvccSnapshot;
use crate::store::registry::Registry;
use crate::store::{memory, workspace};
use sync_ext_core::rules::history::Following;
use sync_ext_core::rules::scope::{Told, told};
use sync_ext_core::wire::ids::{MAX_SCOPE_BYTES, MAX_SCOPES, Scopes};
use workspace::Workspace;

/// A list of scopes, as passed; `None` for NULL, which is the whole workspace.
pub fn scopes(names: &Option<Texts<'_>>) -> Result<Option<Scopes>> {
    let Some(names) = names else { return Ok(None) };
    memory::require(names.len().min(MAX_SCOPES) * 2 * MAX_SCOPE_BYTES)?;
    Scopes::new(names.len(), names.iter()).map(Some)
}

/// What a proof says of the scopes that a reader follows.
pub fn following(scopes: Option<&Scopes>, workspace: Option<Workspace>) -> Option<Following> {
    let epoch = workspace.map_or(0, |workspace| workspace.scope_epoch);
    scopes.map(|scopes| Following::of(scopes, epoch))
}

/// Shows what is inside a list.
pub struct Filter<'s> {
    scopes: &'s Scopes,
    registry: Registry,
    snapshot: &'s MvccSnapshot,
}

impl<'s> Filter<'s> {
    pub fn open(scopes: &'s Scopes, snapshot: &'s MvccSnapshot) -> Result<Filter<'s>> {
        Ok(Filter { scopes, registry: Registry::open()?, snapshot })
    }

    /// Whether the records of a table have scopes.
    pub fn has_scopes(&mut self, table: &str) -> Result<bool> {
        let table = self.registry.find(table, self.snapshot)?;
        Ok(table.is_some_and(|table| table.fields.scope_field.is_some()))
    }

    fn contains(&self, scope: Option<&str>) -> bool {
        self.scopes.contain(scope)
    }

    /// Whether a record with this scope is.
    pub fn is_inside(&mut self, table: &str, scope: Option<&str>) -> Result<bool> {
        Ok(self.contains(scope) || scope.is_none() && !self.has_scopes(table)?)
    }

    pub fn told(&mut self, entry: &Entry<'_>) -> Result<Option<Told>> {
        let is_inside = self.is_inside(entry.table()?, entry.scope())?;
        Ok(told(is_inside, self.contains(entry.left_scope())))
    }
}
