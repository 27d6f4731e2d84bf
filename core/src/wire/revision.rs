//! Revisions as JSON: of a base, and of the fields that patches hold.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use uuid::Uuid;

use super::text::{write_string, write_uuid};
use crate::rules::merge::Fields;
use crate::rules::op::Revision;

/// As `{"clock","hlc","opId"}`.
pub fn write_revision(out: &mut String, revision: &Revision<'_>) {
    let _ = write!(out, "{{\"clock\":{},\"hlc\":", revision.clock);
    write_string(out, &revision.hlc);
    out.push_str(",\"opId\":\"");
    write_uuid(out, revision.op_id);
    out.push_str("\"}");
}

/// As `{"clock","hlc","deviceId","opId"}`.
pub fn write_stamp(out: &mut String, revision: &Revision<'_>, device_id: &str) {
    let _ = write!(out, "{{\"clock\":{},\"hlc\":", revision.clock);
    write_string(out, &revision.hlc);
    out.push_str(",\"deviceId\":");
    write_string(out, device_id);
    out.push_str(",\"opId\":\"");
    write_uuid(out, revision.op_id);
    out.push_str("\"}");
}

/// As `{name:{"clock","hlc","opId"}}`, in byte order of the names.
pub fn write_fields(fields: &Fields<'_>) -> String {
    let mut out = String::from("{");
    for (name, revision) in fields {
        if out.len() > 1 {
            out.push(',');
        }
        write_string(&mut out, name);
        out.push(':');
        write_revision(&mut out, revision);
    }
    out.push('}');
    out
}

/// The length of what [`write_fields`] writes. A patch of many fields with a long hlc is
/// much shorter than that.
pub fn fields_size(fields: &Fields<'_>) -> usize {
    let mut json = String::new();
    let mut last: Option<(&Revision<'_>, usize)> = None;
    let mut size = "{}".len() + fields.len().saturating_sub(1);
    for (name, revision) in fields {
        let of_revision = match last {
            Some((same, length)) if same == revision => length,
            _ => {
                json.clear();
                write_revision(&mut json, revision);
                json.len()
            }
        };
        last = Some((revision, of_revision));
        json.clear();
        write_string(&mut json, name);
        size += json.len() + ":".len() + of_revision;
    }
    size
}

/// What [`write_revision`] wrote.
pub fn read_revision(json: &str) -> Option<Revision<'static>> {
    serde_json::from_str::<Written<'_>>(json).ok()?.into_revision()
}

/// What [`write_fields`] wrote.
pub fn read_fields(json: &str) -> Option<Fields<'static>> {
    let fields: BTreeMap<String, Written<'_>> = serde_json::from_str(json).ok()?;
    let field = |(name, revision): (String, Written<'_>)| {
        revision.into_revision().map(|revision| (name.into(), revision))
    };
    fields.into_iter().map(field).collect()
}

#[derive(Deserialize)]
struct Written<'a> {
    clock: i64,
    #[serde(borrow)]
    hlc: Cow<'a, str>,
    #[serde(rename = "opId", borrow)]
    op_id: Cow<'a, str>,
}

impl Written<'_> {
    fn into_revision(self) -> Option<Revision<'static>> {
        let op_id = Uuid::try_parse(&self.op_id).ok()?;
        Some(Revision { clock: self.clock, hlc: self.hlc.into_owned().into(), op_id })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn revisions() -> impl Strategy<Value = Revision<'static>> {
        (0..=i64::MAX, any::<String>(), any::<u128>()).prop_map(|(clock, hlc, id)| Revision {
            clock,
            hlc: hlc.into(),
            op_id: Uuid::from_u128(id),
        })
    }

    #[test]
    fn fields_are_compact_and_sorted() {
        let revision = Revision { clock: 5, hlc: "h".into(), op_id: Uuid::from_u128(1) };
        let fields = ["b", "a"].map(|name| (name.into(), revision.clone()));
        let one = r#"{"clock":5,"hlc":"h","opId":"00000000-0000-0000-0000-000000000001"}"#;
        assert_eq!(write_fields(&fields.into()), format!(r#"{{"a":{one},"b":{one}}}"#));
        assert_eq!(write_fields(&Fields::new()), "{}");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            fields in prop::collection::btree_map(any::<String>(), revisions(), 0..4)
        ) {
            for revision in fields.values() {
                let mut json = String::new();
                write_revision(&mut json, revision);
                prop_assert_eq!(read_revision(&json), Some(revision.clone()));
            }
            let fields: Fields<'_> =
                fields.into_iter().map(|(name, revision)| (name.into(), revision)).collect();
            let written = write_fields(&fields);
            prop_assert_eq!(fields_size(&fields), written.len());
            prop_assert_eq!(read_fields(&written), Some(fields));
        }
    }
}
