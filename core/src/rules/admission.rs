//! Checks against the current settings and registered tables. Only for ops that are not
//! replays: a stored op stays a replay whatever the settings become.

use super::op::Op;
use super::ownership::OwnerField;
use super::refusal::Refusal;

/// The part that is the same for all ops of a push.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    pub workspace_id: &'a str,
    pub max_payload_bytes: usize,
    pub max_payload_depth: usize,
}

/// A registered table.
#[derive(Clone, Debug)]
pub struct SyncedTable {
    pub pk_field: String,
    /// Where the payload names the owner of a private record.
    pub owner_field: Option<String>,
}

/// Facts about a payload. For the two keys `None` if the key is absent, otherwise
/// whether its value is the required one.
#[derive(Clone, Debug)]
pub struct PayloadFacts<'a> {
    /// The nesting is within the limit.
    pub is_shallow: bool,
    pub pk_matches: Option<bool>,
    pub workspace_matches: Option<bool>,
    pub owner: OwnerField<'a>,
}

/// `table` is `None` if it is not registered. `facts` reads the payload and is called
/// only if its size is allowed. Returns what the payload says about the owner.
pub fn admit<'a>(
    op: &Op<'a>,
    table: Option<&SyncedTable>,
    limits: Limits<'_>,
    facts: impl FnOnce(&'a str, &SyncedTable) -> PayloadFacts<'a>,
) -> Result<OwnerField<'a>, Refusal> {
    let Some(table) = table else {
        return Err(Refusal::Unregistered { table: op.key.table.to_string() });
    };
    let Some(payload) = op.payload else {
        return Ok(if table.owner_field.is_some() {
            OwnerField::Absent
        } else {
            OwnerField::Unasked
        });
    };
    if payload.len() > limits.max_payload_bytes {
        return Err(Refusal::Oversized { size: payload.len(), max: limits.max_payload_bytes });
    }
    let facts = facts(payload, table);
    if !facts.is_shallow {
        return Err(Refusal::TooDeep { max: limits.max_payload_depth });
    }
    if facts.pk_matches == Some(false) {
        return Err(Refusal::PkField { field: table.pk_field.clone() });
    }
    if facts.workspace_matches == Some(false) {
        return Err(Refusal::WorkspaceField);
    }
    Ok(facts.owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::model::{delete, op};

    const NOTHING: PayloadFacts<'static> = PayloadFacts {
        is_shallow: true,
        pk_matches: None,
        workspace_matches: None,
        owner: OwnerField::Unasked,
    };

    fn table(pk_field: &str, owner_field: Option<&str>) -> SyncedTable {
        SyncedTable { pk_field: pk_field.into(), owner_field: owner_field.map(str::to_owned) }
    }

    fn verdict(
        pk_field: Option<&str>,
        max: usize,
        facts: PayloadFacts<'static>,
    ) -> Result<(), Refusal> {
        let limits = Limits { workspace_id: "w", max_payload_bytes: max, max_payload_depth: 7 };
        let table = pk_field.map(|pk_field| table(pk_field, None));
        admit(&op(1, "a", 1), table.as_ref(), limits, |_, _| facts).map(|_| ())
    }

    #[test]
    fn without_a_payload_no_owner_is_named() {
        let limits = Limits { workspace_id: "w", max_payload_bytes: 0, max_payload_depth: 0 };
        let owner_of = |owner_field| {
            let table = table("id", owner_field);
            admit(&delete(1, "a", 1), Some(&table), limits, |_, _| unreachable!())
        };
        assert_eq!(owner_of(None), Ok(OwnerField::Unasked));
        assert_eq!(owner_of(Some("by")), Ok(OwnerField::Absent));
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
        let deep = PayloadFacts { is_shallow: false, ..NOTHING };
        let refusal = verdict(Some("id"), 100, deep).unwrap_err();
        assert_eq!(refusal, Refusal::TooDeep { max: 7 });
        assert_eq!(refusal.code(), crate::rules::refusal::RefusalCode::Oversized);
    }

    #[test]
    fn what_the_payload_says_must_match() {
        let facts = |pk_matches, workspace_matches| PayloadFacts {
            pk_matches,
            workspace_matches,
            ..NOTHING
        };
        assert_eq!(verdict(Some("id"), 100, facts(Some(true), Some(true))), Ok(()));
        assert_eq!(
            verdict(Some("key"), 100, facts(Some(false), None)),
            Err(Refusal::PkField { field: "key".into() })
        );
        assert_eq!(
            verdict(Some("id"), 100, facts(None, Some(false))),
            Err(Refusal::WorkspaceField)
        );
    }
}
