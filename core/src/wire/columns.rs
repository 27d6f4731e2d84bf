//! The fields of an attached table, with the column of each.

use std::collections::BTreeMap;

use super::text::write_string;
use crate::error::SyncError;
use crate::rules::attach_error::AttachError;

/// Reads the argument `columns`, `{"field":"column"}`.
pub fn read(object: &str) -> Result<Vec<(String, String)>, SyncError> {
    let columns: Result<BTreeMap<String, String>, _> = serde_json::from_str(object);
    let columns = columns.map_err(|_| AttachError::Columns {
        found: "It must be an object of fields and their columns.".to_owned(),
    })?;
    Ok(columns.into_iter().collect())
}

/// The same, in the order that is given.
pub fn write(fields: &[(String, String)]) -> String {
    let mut out = String::from("{");
    for (field, column) in fields {
        if out.len() > 1 {
            out.push(',');
        }
        write_string(&mut out, field);
        out.push(':');
        write_string(&mut out, column);
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_columns_are_strings() {
        let fields = vec![("a\"".to_owned(), "x".to_owned()), ("b".to_owned(), "y".to_owned())];
        assert_eq!(read(r#"{"b":"y", "a\"":"x"}"#).unwrap(), fields);
        assert_eq!(read("{}").unwrap(), []);
        for text in ["null", "[]", "1", r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":{}}"#] {
            assert_eq!(read(text).unwrap_err().sqlstate(), "22023", "{text}");
        }
    }

    #[test]
    fn they_are_written_in_their_order() {
        let fields = [("b".to_owned(), "y".to_owned()), ("a\"".to_owned(), "x".to_owned())];
        assert_eq!(write(&fields), r#"{"b":"y","a\"":"x"}"#);
        assert_eq!(write(&[]), "{}");
    }
}
