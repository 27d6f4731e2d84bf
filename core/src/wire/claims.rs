//! JWT claims.

use serde_json::value::RawValue;

use super::fields::FieldsOf;
use super::ids::UserId;
use super::text;
use crate::error::SyncError;

const MAX_USER_BYTES: usize = 256;

/// The user: the `sub`; `None` without one. Invalid claims are an error: without a user
/// the caller would be trusted.
pub fn subject(claims: &str) -> Result<Option<String>, SyncError> {
    // Unlike a json argument, a setting can hold any text.
    let claims: &RawValue = serde_json::from_str(claims).map_err(|_| SyncError::Claims)?;
    let [sub] = FieldsOf(&["sub"]).read(claims.get()).ok_or(SyncError::Claims)?;
    let Some(raw) = sub else { return Ok(None) };
    let sub = text::short_string(raw, MAX_USER_BYTES).filter(|sub| UserId::new(Some(sub)).is_ok());
    sub.map(|sub| Some(sub.into_owned())).ok_or(SyncError::Claims)
}

#[cfg(test)]
mod tests {
    use super::*;

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
