//! What the settings and registered tables of today allow. Asked only of ops
//! that are not replays: what was stored once stays a replay whatever the
//! settings became.

use super::op::Op;
use super::refusal::Refusal;

/// The part of the rules that is the same for all ops of a push.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    pub workspace_id: &'a str,
    pub max_payload_bytes: usize,
}

/// What the payload says about itself: `None` where the key is absent, else
/// whether its value equals what it must equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct PayloadClaims {
    pub pk_matches: Option<bool>,
    pub workspace_matches: Option<bool>,
}

/// `pk_field` is the registered one, `None` for an unregistered table;
/// `claims` reads the payload and is asked only when its size is allowed.
pub fn admit(
    op: &Op<'_>,
    pk_field: Option<&str>,
    limits: Limits<'_>,
    claims: impl FnOnce(&str, &str) -> PayloadClaims,
) -> Result<(), Refusal> {
    let Some(pk_field) = pk_field else {
        return Err(Refusal::Unregistered { table: op.key.table.to_string() });
    };
    let Some(payload) = op.payload else {
        return Ok(());
    };
    if payload.len() > limits.max_payload_bytes {
        return Err(Refusal::Oversized { size: payload.len(), max: limits.max_payload_bytes });
    }
    let claims = claims(payload, pk_field);
    if claims.pk_matches == Some(false) {
        return Err(Refusal::PkField { field: pk_field.to_owned() });
    }
    if claims.workspace_matches == Some(false) {
        return Err(Refusal::WorkspaceField);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::model::op;

    fn verdict(pk_field: Option<&str>, max: usize, claims: PayloadClaims) -> Result<(), Refusal> {
        let limits = Limits { workspace_id: "w", max_payload_bytes: max };
        admit(&op(1, "a", 1), pk_field, limits, |_, _| claims)
    }

    #[test]
    fn an_unregistered_table_is_refused_by_name() {
        let refusal = verdict(None, 100, PayloadClaims::default()).unwrap_err();
        assert!(refusal.to_string().contains("sync_register_table"), "{refusal}");
        assert!(refusal.to_string().contains("\"t\""), "{refusal}");
    }

    #[test]
    fn a_payload_may_be_as_long_as_the_setting_and_no_longer() {
        let length = op(1, "a", 1).payload.unwrap().len();
        assert_eq!(verdict(Some("id"), length, PayloadClaims::default()), Ok(()));
        assert_eq!(
            verdict(Some("id"), length - 1, PayloadClaims::default()),
            Err(Refusal::Oversized { size: length, max: length - 1 })
        );
    }

    #[test]
    fn what_the_payload_claims_must_match() {
        let claims =
            |pk_matches, workspace_matches| PayloadClaims { pk_matches, workspace_matches };
        assert_eq!(verdict(Some("id"), 100, claims(Some(true), Some(true))), Ok(()));
        assert_eq!(
            verdict(Some("key"), 100, claims(Some(false), None)),
            Err(Refusal::PkField { field: "key".into() })
        );
        assert_eq!(
            verdict(Some("id"), 100, claims(None, Some(false))),
            Err(Refusal::WorkspaceField)
        );
    }
}
