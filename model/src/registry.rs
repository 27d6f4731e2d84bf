//! The tables that may be pushed to.

use serde_json::Value;

use crate::refusal::{Outcome, invalid, named, refusal, trusted_only};
use crate::server::{Server, Table};

impl Server {
    pub fn register(
        &mut self,
        user: Option<&str>,
        table: &str,
        pk_field: &str,
        owner_field: Option<&str>,
        patches: bool,
    ) -> Outcome {
        self.register_scoped(user, table, (pk_field, owner_field, None), patches)
    }

    /// With the pk, owner and scope field.
    pub fn register_scoped(
        &mut self,
        user: Option<&str>,
        table: &str,
        (pk_field, owner_field, scope_field): (&str, Option<&str>, Option<&str>),
        patches: bool,
    ) -> Outcome {
        trusted_only(user)?;
        named(table, 128, "invalid table_name")?;
        named(pk_field, 128, "invalid pk_field")?;
        if let Some(field) = owner_field {
            named(field, 128, "invalid owner_field")?;
            if field == pk_field || field == "workspace_id" {
                return Err(invalid("invalid owner_field"));
            }
        }
        if let Some(field) = scope_field.filter(|field| !field.is_empty()) {
            named(field, 128, "invalid scope_field")?;
            if field == pk_field {
                return Err(invalid("scope_field is taken"));
            }
        }
        let known = self.tables.get(table);
        if owner_field.is_none() && known.is_some_and(|known| known.owner_field.is_some()) {
            return Err(refusal("55000", "table has an owner_field"));
        }
        let scope_field = self.choose_scope_field(table, pk_field, scope_field)?;
        let (pk_field, owner_field) = (pk_field.to_owned(), owner_field.map(str::to_owned));
        let fields = Table { pk_field, owner_field, scope_field, patches };
        self.tables.insert(table.to_owned(), fields);
        Ok(Value::Null)
    }

    pub fn unregister(&mut self, user: Option<&str>, table: &str) -> Outcome {
        trusted_only(user)?;
        let is_scoped = self.tables.get(table).is_some_and(|known| known.scope_field.is_some());
        if is_scoped && self.has_records(table) {
            return Err(refusal("55000", "table has scopes"));
        }
        self.tables.remove(table);
        Ok(Value::Null)
    }
}
