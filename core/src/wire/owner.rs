//! The owner of a record in its payload.

use super::fields::FieldsOf;
use super::ids::UserId;
use super::splice::{Changes, Splice};
use super::text::{self, write_string};
use super::value::Digests;
use crate::rules::ownership::OwnerField;

const MAX_USER_BYTES: usize = 256;

/// Reads the raw value of the owner field. A number stands for the user with the same
/// text.
pub fn owner_field(raw: Option<&str>) -> OwnerField<'_> {
    let Some(raw) = raw else { return OwnerField::Absent };
    let user = if text::is_number(raw) {
        Some(raw.into())
    } else {
        text::short_string(raw, MAX_USER_BYTES)
    };
    match user {
        Some(user) if UserId::new(Some(&user)).is_ok() => OwnerField::User(user),
        _ => OwnerField::Nobody,
    }
}

/// Appends a member to an object; the rest stays byte for byte.
pub fn fill(payload: &str, field: &str, owner: &str) -> String {
    let mut value = String::new();
    write_string(&mut value, owner);
    let mut changes = Changes::default();
    changes.set(field.into(), &value);
    Splice::of(payload, &changes).map_or_else(|| payload.to_owned(), |filled| filled.to_json())
}

/// Whether the received `payload`, with `field` filled in, is the stored one.
pub fn same_filled(
    payload: &str,
    field: &str,
    owner: &str,
    stored: &str,
    digests: &Digests,
) -> bool {
    let is_absent = FieldsOf(&[field]).read(payload).is_some_and(|[raw]| raw.is_none());
    is_absent && digests.same(&fill(payload, field, owner), stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_filled(payload: &str, field: &str, owner: &str, stored: &str) -> bool {
        same_filled(payload, field, owner, stored, &Digests::new(|| ()))
    }

    #[test]
    fn an_owner_is_a_text_or_a_number() {
        assert_eq!(owner_field(None), OwnerField::Absent);
        assert_eq!(owner_field(Some("\"a\\u006en\"")), OwnerField::User("ann".into()));
        assert_eq!(owner_field(Some("42")), OwnerField::User("42".into()));
        let (long, high) = (format!("\"{}\"", "a".repeat(257)), "1".repeat(257));
        for raw in
            ["null", "\"\"", "{}", "[\"ann\"]", "true", "\"\\ud800\"", "\"a\\u0000\"", &long, &high]
        {
            assert_eq!(owner_field(Some(raw)), OwnerField::Nobody, "{raw}");
        }
    }

    #[test]
    fn filling_adds_one_member_at_the_end() {
        for (payload, filled) in [
            ("{}", r#"{"by":"a\"n"}"#),
            ("{ }", r#"{ "by":"a\"n"}"#),
            (r#"{"id":"{" }"#, r#"{"id":"{" ,"by":"a\"n"}"#),
            ("{\"id\":{}}\n", "{\"id\":{},\"by\":\"a\\\"n\"}\n"),
        ] {
            assert_eq!(fill(payload, "by", "a\"n"), filled);
            assert!(is_filled(payload, "by", "a\"n", filled));
        }
    }

    #[test]
    fn what_was_filled_is_the_same_op_only_without_the_field() {
        let stored = fill(r#"{"id":"n"}"#, "by", "ann");
        assert!(is_filled(r#"{ "id" : "n" }"#, "by", "ann", &stored));
        assert!(!is_filled(r#"{"id":"m"}"#, "by", "ann", &stored));
        assert!(!is_filled(r#"{"id":"n","by":"bob"}"#, "by", "ann", &stored));
    }
}
