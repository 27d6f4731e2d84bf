//! Scopes: which part of a workspace a reader follows, and which a record is in.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::json::{Members, text};
use crate::refusal::{Outcome, Refusal, invalid, named, refusal, trusted_only};
use crate::server::{Entry, Record, Server, Table, Workspace};

/// The scopes that a reader follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scopes(BTreeSet<String>);

impl Scopes {
    pub fn of<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Scopes {
        Scopes(names.into_iter().map(|name| name.as_ref().to_owned()).collect())
    }

    /// As the argument says, which may be NULL and hold NULLs.
    pub fn of_argument(names: Option<&[Option<String>]>) -> Result<Option<Scopes>, Refusal> {
        let Some(names) = names else { return Ok(None) };
        if names.len() > 1000 {
            return Err(invalid("too many names in scopes"));
        }
        // Longer ones are no record's.
        Ok(Some(Scopes::of(names.iter().flatten().filter(|name| name.len() <= 256))))
    }

    pub fn names(&self) -> &BTreeSet<String> {
        &self.0
    }

    pub fn has(&self, scope: &Option<String>) -> bool {
        scope.as_ref().is_some_and(|scope| self.0.contains(scope))
    }
}

/// What a proof holds of its reader's scopes; `None` for the whole workspace.
pub type Following = Option<(Scopes, i64)>;

/// Where an entry is for a reader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Inside,
    Left,
    Outside,
}

/// What a payload says in a scope field; `None` where that cannot be a scope.
pub(crate) fn said(payload: &str, field: &str) -> Option<String> {
    match Members::of(payload).unwrap_or_default().get(field) {
        None | Some("null") => Some(String::new()),
        Some(raw) if raw.starts_with('"') => {
            text(raw).filter(|scope| scope.len() <= 256 && !scope.contains('\0'))
        }
        Some(_) => None,
    }
}

impl Table {
    /// The scope of a live record with this payload.
    fn scope_of(&self, payload: Option<&str>) -> Option<String> {
        let field = self.scope_field.as_ref()?;
        Some(said(payload.unwrap_or("{}"), field).unwrap_or_default())
    }

    /// Of a record after an op that was applied, and left this payload.
    pub(crate) fn scope_after(
        &self,
        before: Option<&Record>,
        is_delete: bool,
        payload: Option<&str>,
    ) -> Option<String> {
        self.scope_field.as_ref()?;
        if is_delete {
            return before.and_then(|record| record.scope.clone());
        }
        self.scope_of(payload)
    }
}

impl Server {
    fn has_scopes(&self, table: &str) -> bool {
        self.tables.get(table).is_some_and(|table| table.scope_field.is_some())
    }

    pub fn is_inside(&self, scopes: Option<&Scopes>, table: &str, scope: &Option<String>) -> bool {
        let is_of_none = || scope.is_none() && !self.has_scopes(table);
        scopes.is_none_or(|scopes| scopes.has(scope) || is_of_none())
    }

    pub(crate) fn place(&self, scopes: Option<&Scopes>, entry: &Entry) -> Place {
        if self.is_inside(scopes, &entry.op.table, &entry.scope) {
            Place::Inside
        } else if scopes.is_some_and(|scopes| scopes.has(&entry.left_scope)) {
            Place::Left
        } else {
            Place::Outside
        }
    }

    pub(crate) fn following(&self, scopes: Option<&Scopes>, workspace: &str) -> Following {
        let epoch = self.workspaces.get(workspace).map_or(0, |state| state.scope_epoch);
        scopes.map(|scopes| (scopes.clone(), epoch))
    }

    pub(crate) fn has_records(&self, table: &str) -> bool {
        let of_table = |state: &Workspace| state.records.keys().any(|key| key.0 == table);
        self.workspaces.values().any(of_table)
    }

    /// Of a table that is registered: NULL leaves it as it is.
    pub(crate) fn choose_scope_field(
        &self,
        table: &str,
        pk_field: &str,
        scope_field: Option<&str>,
    ) -> Result<Option<String>, Refusal> {
        let known = self.tables.get(table).and_then(|table| table.scope_field.clone());
        let field = match scope_field {
            None => known.clone(),
            Some("") => None,
            Some(field) => Some(field.to_owned()),
        };
        if field.as_deref() == Some(pk_field) {
            return Err(invalid("scope_field is taken"));
        }
        if field != known && self.has_records(table) {
            return Err(refusal("55000", "table has records"));
        }
        Ok(field)
    }

    pub fn set_scope_field(
        &mut self,
        user: Option<&str>,
        table: &str,
        scope_field: Option<&str>,
    ) -> Outcome {
        trusted_only(user)?;
        named(table, 128, "invalid table_name")?;
        let field = scope_field.filter(|field| !field.is_empty());
        if let Some(field) = field {
            named(field, 128, "invalid scope_field")?;
        }
        let Some(registered) = self.tables.get_mut(table) else {
            return Err(refusal("42704", "table is not registered"));
        };
        if field == Some(&*registered.pk_field) {
            return Err(invalid("scope_field is taken"));
        }
        registered.scope_field = field.map(str::to_owned);
        let registered = registered.clone();
        self.workspaces.values_mut().for_each(|state| state.bring_to_scopes(table, &registered));
        Ok(Value::Null)
    }
}

impl Workspace {
    /// All scopes of a table anew, by the payloads of live records.
    fn bring_to_scopes(&mut self, name: &str, table: &Table) {
        self.changes += 1;
        let Workspace { log, records, .. } = self;
        let mut has_some = false;
        for (_, record) in records.iter_mut().filter(|(key, _)| key.0 == name) {
            has_some = true;
            let entry = log.get(&record.version).filter(|_| !record.is_deleted);
            record.scope = entry.and_then(|entry| table.scope_of(entry.record()));
        }
        for (version, entry) in log.iter_mut().filter(|(_, entry)| entry.op.table == name) {
            let record = &records[&entry.op.key()];
            entry.left_scope = None;
            entry.scope = record.scope.clone().filter(|_| record.version == *version);
        }
        self.scope_epoch += i64::from(has_some);
    }
}

#[cfg(test)]
mod tests {
    use super::said;

    #[test]
    fn a_scope_is_the_last_string_of_its_name() {
        for (payload, scope) in [
            (r#"{"in":"a"}"#, Some("a")),
            (r#"{"in":1,"\u0069n":"b"}"#, Some("b")),
            (r#"{"in":null}"#, Some("")),
            ("{}", Some("")),
            (r#"{"in":["a"]}"#, None),
            (r#"{"in":7}"#, None),
            (r#"{"in":"\u0000"}"#, None),
            (r#"{"in":"\ud800"}"#, None),
        ] {
            assert_eq!(said(payload, "in").as_deref(), scope, "{payload}");
        }
    }
}
