//! The words of the contract as types.

use std::borrow::Cow;

use uuid::Uuid;

/// Microseconds since 2000-01-01 UTC, as in Postgres.
pub type Timestamp = i64;

/// The number of an op in its workspace; 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(i64);

impl Version {
    pub const ZERO: Version = Version(0);

    /// A version from a caller; `None` if it is negative.
    pub fn new(value: i64) -> Option<Version> {
        (value >= 0).then_some(Version(value))
    }

    /// A version that this extension stored.
    pub const fn stored(value: i64) -> Version {
        Version(value)
    }

    pub const fn get(self) -> i64 {
        self.0
    }

    /// `None` after the last possible version.
    pub fn next(self) -> Option<Version> {
        self.0.checked_add(1).map(Version)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Put,
    Delete,
    /// Writes some top-level fields of a record.
    Patch,
}

impl Operation {
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Delete => "delete",
            Operation::Patch => "patch",
        }
    }

    pub fn parse(word: &str) -> Option<Operation> {
        match word {
            "put" => Some(Operation::Put),
            "delete" => Some(Operation::Delete),
            "patch" => Some(Operation::Patch),
            _ => None,
        }
    }
}

/// What LWW compares: clock as a number, then hlc and opId by bytes. The derived order
/// compares the fields in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision<'a> {
    pub clock: i64,
    pub hlc: Cow<'a, str>,
    pub op_id: Uuid,
}

impl Revision<'_> {
    pub fn into_owned(self) -> Revision<'static> {
        Revision { hlc: Cow::Owned(self.hlc.into_owned()), ..self }
    }
}

/// A record's name within its workspace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey<'a> {
    pub table: Cow<'a, str>,
    pub pk: Cow<'a, str>,
}

/// The newest entry of the record that an op's author had seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// No entry: the record was unknown.
    None,
    Op(Uuid),
}

/// A condition on the record that an op finds at its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// There is no live record.
    None,
    /// The newest entry is this op's.
    Op(Uuid),
    /// The record is live, and each field is held by its op: by this patch, or, where
    /// no patch holds it, by this put.
    Fields(Vec<(Cow<'a, str>, Uuid)>),
}

/// What a patch writes, and to which put's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch<'a> {
    /// The revision of the put whose record it edits.
    pub base: Revision<'a>,
    /// Names and values, as JSON texts; each name once.
    pub fields: Vec<(Cow<'a, str>, &'a str)>,
}

/// One well-formed op. The payload is the JSON text as received.
#[derive(Clone, Debug)]
pub struct Op<'a> {
    pub key: RecordKey<'a>,
    pub operation: Operation,
    pub payload: Option<&'a str>,
    pub revision: Revision<'a>,
    pub device_id: Cow<'a, str>,
    /// Only a patch has one.
    pub patch: Option<Box<Patch<'a>>>,
    /// `None` if the op has none. It is not part of the op's content: a retry may have
    /// another one.
    pub parent: Option<Parent>,
    /// Not part of the op's content either.
    pub expected: Option<Box<Expected<'a>>>,
}

impl<'a> Op<'a> {
    pub fn op_id(&self) -> Uuid {
        self.revision.op_id
    }

    /// The revision of the put that a patch edits.
    pub fn base(&self) -> Option<&Revision<'a>> {
        self.patch.as_ref().map(|patch| &patch.base)
    }

    /// Whether `other` is the same op sent again. `same_payload` compares two payloads
    /// as JSON values; it is called last because it is expensive.
    pub fn same_content(
        &self,
        other: &Op<'_>,
        same_payload: impl FnOnce(&str, &str) -> bool,
    ) -> bool {
        self.key == other.key
            && self.operation == other.operation
            && self.revision == other.revision
            && self.device_id == other.device_id
            && self.base() == other.base()
            && match (self.payload, other.payload) {
                (None, None) => true,
                (Some(mine), Some(theirs)) => mine == theirs || same_payload(mine, theirs),
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn revisions() -> impl Strategy<Value = Revision<'static>> {
        // Few values, so that ties in each field are common.
        (0..3i64, "[aAé]{1,2}", 0..3u128).prop_map(|(clock, hlc, id)| Revision {
            clock,
            hlc: hlc.into(),
            op_id: Uuid::from_u128(id),
        })
    }

    proptest! {
        #[test]
        fn lww_is_a_total_order(a in revisions(), b in revisions(), c in revisions()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }

        #[test]
        fn lww_compares_clock_then_hlc_bytes_then_op_id_bytes(a in revisions(), b in revisions()) {
            let by_hand = (a.clock, a.hlc.as_bytes(), a.op_id.as_bytes())
                .cmp(&(b.clock, b.hlc.as_bytes(), b.op_id.as_bytes()));
            prop_assert_eq!(a.cmp(&b), by_hand);
        }
    }

    #[test]
    fn hlc_order_is_by_bytes_not_by_locale() {
        let with = |hlc: &'static str| Revision { clock: 1, hlc: hlc.into(), op_id: Uuid::nil() };
        assert!(with("Z") < with("a"), "a locale would sort a before Z");
        assert!(with("z") < with("é"));
    }

    #[test]
    fn clock_order_is_numeric() {
        let with = |clock| Revision { clock, hlc: "h".into(), op_id: Uuid::nil() };
        assert!(with(9) < with(10));
    }
}
