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
        trusted_only(user)?;
        named(table, 128, "invalid table_name")?;
        named(pk_field, 128, "invalid pk_field")?;
        if let Some(field) = owner_field {
            named(field, 128, "invalid owner_field")?;
            if field == pk_field || field == "workspace_id" {
                return Err(invalid("invalid owner_field"));
            }
        } else if self.tables.get(table).is_some_and(|known| known.owner_field.is_some()) {
            return Err(refusal("55000", "table has an owner_field"));
        }
        let (pk_field, owner_field) = (pk_field.to_owned(), owner_field.map(str::to_owned));
        self.tables.insert(table.to_owned(), Table { pk_field, owner_field, patches });
        Ok(Value::Null)
    }

    pub fn unregister(&mut self, user: Option<&str>, table: &str) -> Outcome {
        trusted_only(user)?;
        self.tables.remove(table);
        Ok(Value::Null)
    }
}
