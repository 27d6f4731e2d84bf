//! Where a payload names the owner of its record, and where a caller's claims
//! name the user.

use serde_json::value::RawValue;

use super::fields::FieldsOf;
use super::ids::UserId;
use super::text::{self, write_string};
use super::value::Digests;
use crate::error::SyncError;
use crate::rules::ownership::Claim;

/// Of a user's name.
const MAX_BYTES: usize = 256;

/// What the raw value of the owner field, if it is there, says. A number names
/// the user that it is written as.
pub fn claim(raw: Option<&str>) -> Claim<'_> {
    let Some(raw) = raw else { return Claim::Absent };
    let user =
        if text::is_number(raw) { Some(raw.into()) } else { text::short_string(raw, MAX_BYTES) };
    match user {
        Some(user) if UserId::new(Some(&user)).is_ok() => Claim::User(user),
        _ => Claim::Nobody,
    }
}

/// An object with one more member at its end; the rest byte for byte.
pub fn fill(payload: &str, field: &str, owner: &str) -> String {
    let members = payload.trim_ascii_end();
    let members = members.strip_suffix('}').unwrap_or(members);
    let mut filled = String::with_capacity(payload.len() + field.len() + owner.len() + 8);
    filled.push_str(members);
    if !members.trim_ascii_end().ends_with('{') {
        filled.push(',');
    }
    write_string(&mut filled, field);
    filled.push(':');
    write_string(&mut filled, owner);
    filled.push('}');
    filled
}

/// Is `payload`, as received, what was stored with `field` filled in?
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

/// The user of JWT claims: their `sub`. `None` if they have none. Claims that
/// cannot be read are an error, not nobody's: nobody may do everything.
pub fn subject(claims: &str) -> Result<Option<String>, SyncError> {
    // Unlike what comes as json, a setting may hold anything.
    let claims: &RawValue = serde_json::from_str(claims).map_err(|_| SyncError::Claims)?;
    let [sub] = FieldsOf(&["sub"]).read(claims.get()).ok_or(SyncError::Claims)?;
    let Some(raw) = sub else { return Ok(None) };
    let sub = text::short_string(raw, MAX_BYTES).filter(|sub| UserId::new(Some(sub)).is_ok());
    sub.map(|sub| Some(sub.into_owned())).ok_or(SyncError::Claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_filled(payload: &str, field: &str, owner: &str, stored: &str) -> bool {
        same_filled(payload, field, owner, stored, &Digests::new(|| ()))
    }

    #[test]
    fn an_owner_is_a_text_or_a_number() {
        assert_eq!(claim(None), Claim::Absent);
        assert_eq!(claim(Some("\"a\\u006en\"")), Claim::User("ann".into()));
        assert_eq!(claim(Some("42")), Claim::User("42".into()));
        let (long, high) = (format!("\"{}\"", "a".repeat(257)), "1".repeat(257));
        for raw in
            ["null", "\"\"", "{}", "[\"ann\"]", "true", "\"\\ud800\"", "\"a\\u0000\"", &long, &high]
        {
            assert_eq!(claim(Some(raw)), Claim::Nobody, "{raw}");
        }
    }

    #[test]
    fn filling_adds_one_member_at_the_end() {
        for (payload, filled) in [
            ("{}", r#"{"by":"a\"n"}"#),
            ("{ }", r#"{ "by":"a\"n"}"#),
            (r#"{"id":"{" }"#, r#"{"id":"{" ,"by":"a\"n"}"#),
            ("{\"id\":{}}\n", r#"{"id":{},"by":"a\"n"}"#),
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

    #[test]
    fn the_user_of_claims_is_their_sub() {
        assert_eq!(subject(r#"{"role":"web","sub":"ann"}"#).unwrap().as_deref(), Some("ann"));
        assert_eq!(subject(r#"{"sub":"bob","sub":"ann"}"#).unwrap().as_deref(), Some("ann"));
        assert_eq!(subject(r#"{"role":"service"}"#).unwrap(), None);
        let long = format!(r#"{{"sub":"{}"}}"#, "a".repeat(257));
        for claims in [
            "x",
            "[]",
            "null",
            "{\"sub\":\"ann\"",
            r#"{"sub":"ann"} x"#,
            r#"{"sub":1}"#,
            r#"{"sub":null}"#,
            r#"{"sub":""}"#,
            r#"{"sub":"a\u0000"}"#,
            &long,
        ] {
            assert!(matches!(subject(claims), Err(SyncError::Claims)), "{claims}");
        }
    }
}
