//! Checks against the current settings and registered tables. Only for ops that are not
//! replays: a stored op stays a replay whatever the settings become.

use std::rc::Rc;

use super::op::Op;
use super::ownership::OwnerField;
use super::refusal::Refusal;
use super::scope::ScopeField;

/// The part that is the same for all ops of a push.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    pub workspace_id: &'a str,
    pub max_payload_bytes: usize,
    pub max_payload_depth: usize,
    /// What an hlc of milliseconds since 1970 may say at most.
    pub max_hlc_millis: Option<i64>,
    /// The highest clock of an op that writes a typed row.
    pub max_row_clock: i64,
}

/// A registered table.
#[derive(Clone, Debug)]
pub struct SyncedTable {
    pub pk_field: String,
    /// Where the payload names the owner of a private record.
    pub owner_field: Option<String>,
    /// Where the payload names the scope of a record.
    pub scope_field: Option<Rc<str>>,
    /// Are patches allowed?
    pub patches: bool,
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
    pub scope: ScopeField<'a>,
}

/// What the payload of an admitted op says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said<'a> {
    pub owner: OwnerField<'a>,
    pub scope: ScopeField<'a>,
}

/// `table` is `None` if it is not registered. `facts` reads the payload and is called
/// only if its size is allowed.
pub fn admit<'a>(
    op: &Op<'a>,
    table: Option<&SyncedTable>,
    limits: Limits<'_>,
    facts: impl FnOnce(&'a str, &SyncedTable) -> PayloadFacts<'a>,
) -> Result<Said<'a>, Refusal> {
    let Some(table) = table else {
        return Err(Refusal::Unregistered { table: op.key.table.to_string() });
    };
    if let (Some(max), Some(millis)) = (limits.max_hlc_millis, millis(&op.revision.hlc))
        && millis > max
    {
        return Err(Refusal::ClockAhead { by: millis - max });
    }
    if op.patch.is_some() && !table.patches {
        return Err(Refusal::PatchesNotAllowed { table: op.key.table.to_string() });
    }
    let Some(payload) = op.payload else {
        return Ok(Said {
            owner: match table.owner_field {
                Some(_) => OwnerField::Absent,
                None => OwnerField::Unasked,
            },
            scope: match table.scope_field {
                Some(_) => ScopeField::Absent,
                None => ScopeField::Unasked,
            },
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
    if let (ScopeField::Invalid, Some(field)) = (&facts.scope, &table.scope_field) {
        return Err(Refusal::Scope { field: field.to_string() });
    }
    Ok(Said { owner: facts.owner, scope: facts.scope })
}

/// Whether a record may become as large as a patch would make it.
pub fn admit_merged(payload: usize, fields: usize, limits: Limits<'_>) -> Result<(), Refusal> {
    let (size, max) = (payload.max(fields), limits.max_payload_bytes);
    if size > max { Err(Refusal::OversizedRecord { size, max }) } else { Ok(()) }
}

/// The time that an hlc begins with, if it is one of 13 digits.
fn millis(hlc: &str) -> Option<i64> {
    let digits = hlc.get(..13).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::model::{delete, op, patch};
    use crate::rules::op::Revision;

    const NOTHING: PayloadFacts<'static> = PayloadFacts {
        is_shallow: true,
        pk_matches: None,
        workspace_matches: None,
        owner: OwnerField::Unasked,
        scope: ScopeField::Unasked,
    };

    const LIMITS: Limits<'static> = Limits {
        workspace_id: "w",
        max_payload_bytes: 100,
        max_payload_depth: 7,
        max_hlc_millis: None,
        max_row_clock: 0,
    };

    fn table(pk_field: &str, owner_field: Option<&str>) -> SyncedTable {
        SyncedTable {
            pk_field: pk_field.into(),
            owner_field: owner_field.map(str::to_owned),
            scope_field: None,
            patches: false,
        }
    }

    fn verdict(
        pk_field: Option<&str>,
        max: usize,
        facts: PayloadFacts<'static>,
    ) -> Result<(), Refusal> {
        let limits = Limits { max_payload_bytes: max, ..LIMITS };
        let table = pk_field.map(|pk_field| table(pk_field, None));
        admit(&op(1, "a", 1), table.as_ref(), limits, |_, _| facts).map(|_| ())
    }

    #[test]
    fn without_a_payload_no_owner_is_named() {
        let limits = Limits { max_payload_bytes: 0, max_payload_depth: 0, ..LIMITS };
        let owner_of = |owner_field| {
            let table = table("id", owner_field);
            let said = admit(&delete(1, "a", 1), Some(&table), limits, |_, _| unreachable!());
            said.map(|said| said.owner)
        };
        assert_eq!(owner_of(None), Ok(OwnerField::Unasked));
        assert_eq!(owner_of(Some("by")), Ok(OwnerField::Absent));
    }

    #[test]
    fn a_clock_that_is_ahead_is_refused_where_that_is_bounded() {
        let verdict = |hlc: &'static str, max_hlc_millis| {
            let op = Op {
                revision: Revision { hlc: hlc.into(), ..op(1, "a", 1).revision },
                ..op(1, "a", 1)
            };
            let limits = Limits { max_hlc_millis, ..LIMITS };
            admit(&op, Some(&table("id", None)), limits, |_, _| NOTHING).map(|_| ())
        };
        let ahead = Err(Refusal::ClockAhead { by: 1 });
        assert_eq!(verdict("1700000000001:0000:d", Some(1_700_000_000_000)), ahead);
        assert_eq!(verdict("1700000000001", Some(1_700_000_000_000)), ahead);
        assert_eq!(verdict("1700000000000:0000:d", Some(1_700_000_000_000)), Ok(()));
        assert_eq!(verdict("9999999999999:0000:d", None), Ok(()));
        for hlc in ["h", "170000000000", "2199-01-01T00:00:00Z", "999999999999é", "+999999999999"]
        {
            assert_eq!(verdict(hlc, Some(0)), Ok(()), "{hlc}");
        }
    }

    #[test]
    fn neither_payload_nor_fields_of_a_merged_record_may_be_too_large() {
        assert_eq!(admit_merged(100, 100, LIMITS), Ok(()));
        let refused = Err(Refusal::OversizedRecord { size: 101, max: 100 });
        assert_eq!(admit_merged(101, 0, LIMITS), refused);
        assert_eq!(admit_merged(0, 101, LIMITS), refused);
    }

    #[test]
    fn patches_are_refused_where_they_are_not_allowed() {
        let patch = patch(2, &op(1, "a", 1), 2, &["x"]);
        let verdict = |patches| {
            let table = SyncedTable { patches, ..table("id", None) };
            admit(&patch, Some(&table), LIMITS, |_, _| NOTHING).map(|_| ())
        };
        assert_eq!(verdict(true), Ok(()));
        assert_eq!(verdict(false), Err(Refusal::PatchesNotAllowed { table: "t".into() }));
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
