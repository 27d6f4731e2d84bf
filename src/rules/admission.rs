//! What the settings and registered tables of today allow. Asked only of ops
//! that are not replays: what was stored once stays a replay whatever the
//! settings became.

use super::op::Op;
use super::ownership::Claim;
use super::refusal::Refusal;

/// The part of the rules that is the same for all ops of a push.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    pub workspace_id: &'a str,
    pub max_payload_bytes: usize,
    pub max_payload_depth: usize,
}

/// A registered table.
#[derive(Clone, Debug)]
pub struct Table {
    pub pk_field: String,
    /// Where the payload names the owner of a private record.
    pub owner_field: Option<String>,
}

/// What the payload says about itself: `None` where the key is absent, else
/// whether its value equals what it must equal; and whose the record is.
#[derive(Clone, Debug)]
pub struct PayloadClaims<'a> {
    /// Is it nested no deeper than is allowed?
    pub is_shallow: bool,
    pub pk_matches: Option<bool>,
    pub workspace_matches: Option<bool>,
    pub owner: Claim<'a>,
}

/// `table` is `None` if it is not registered; `claims` reads the payload and is
/// asked only when its size is allowed. Gives what is claimed about the owner.
pub fn admit<'a>(
    op: &Op<'a>,
    table: Option<&Table>,
    limits: Limits<'_>,
    claims: impl FnOnce(&'a str, &Table) -> PayloadClaims<'a>,
) -> Result<Claim<'a>, Refusal> {
    let Some(table) = table else {
        return Err(Refusal::Unregistered { table: op.key.table.to_string() });
    };
    let Some(payload) = op.payload else {
        return Ok(if table.owner_field.is_some() { Claim::Absent } else { Claim::Unasked });
    };
    if payload.len() > limits.max_payload_bytes {
        return Err(Refusal::Oversized { size: payload.len(), max: limits.max_payload_bytes });
    }
    let claims = claims(payload, table);
    if !claims.is_shallow {
        return Err(Refusal::TooDeep { max: limits.max_payload_depth });
    }
    if claims.pk_matches == Some(false) {
        return Err(Refusal::PkField { field: table.pk_field.clone() });
    }
    if claims.workspace_matches == Some(false) {
        return Err(Refusal::WorkspaceField);
    }
    Ok(claims.owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::model::{delete, op};

    const NOTHING: PayloadClaims<'static> = PayloadClaims {
        is_shallow: true,
        pk_matches: None,
        workspace_matches: None,
        owner: Claim::Unasked,
    };

    fn table(pk_field: &str, owner_field: Option<&str>) -> Table {
        Table { pk_field: pk_field.into(), owner_field: owner_field.map(str::to_owned) }
    }

    fn verdict(
        pk_field: Option<&str>,
        max: usize,
        claims: PayloadClaims<'static>,
    ) -> Result<(), Refusal> {
        let limits = Limits { workspace_id: "w", max_payload_bytes: max, max_payload_depth: 7 };
        let table = pk_field.map(|pk_field| table(pk_field, None));
        admit(&op(1, "a", 1), table.as_ref(), limits, |_, _| claims).map(|_| ())
    }

    #[test]
    fn without_a_payload_nothing_is_claimed() {
        let limits = Limits { workspace_id: "w", max_payload_bytes: 0, max_payload_depth: 0 };
        let claim = |owner_field| {
            let table = table("id", owner_field);
            admit(&delete(1, "a", 1), Some(&table), limits, |_, _| unreachable!())
        };
        assert_eq!(claim(None), Ok(Claim::Unasked));
        assert_eq!(claim(Some("by")), Ok(Claim::Absent));
    }

    #[test]
    fn an_unregistered_table_is_refused_by_name() {
        let refusal = verdict(None, 100, NOTHING).unwrap_err();
        assert!(refusal.to_string().contains("sync_register_table"), "{refusal}");
        assert!(refusal.to_string().contains("\"t\""), "{refusal}");
    }

    #[test]
    fn a_payload_may_be_as_long_as_the_setting_and_no_longer() {
        let length = op(1, "a", 1).payload.unwrap().len();
        assert_eq!(verdict(Some("id"), length, NOTHING), Ok(()));
        assert_eq!(
            verdict(Some("id"), length - 1, NOTHING),
            Err(Refusal::Oversized { size: length, max: length - 1 })
        );
    }

    #[test]
    fn a_payload_that_is_too_deep_is_refused_as_one_that_is_too_large() {
        let deep = PayloadClaims { is_shallow: false, ..NOTHING };
        let refusal = verdict(Some("id"), 100, deep).unwrap_err();
        assert_eq!(refusal, Refusal::TooDeep { max: 7 });
        assert_eq!(refusal.code(), crate::rules::refusal::RefusalCode::Oversized);
    }

    #[test]
    fn what_the_payload_claims_must_match() {
        let claims = |pk_matches, workspace_matches| PayloadClaims {
            pk_matches,
            workspace_matches,
            ..NOTHING
        };
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
