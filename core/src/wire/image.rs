//! The image of a typed row: an object with a member per synced column.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::fields::{each_member, members};
use super::splice::{Changes, Splice};
use super::text::write_string;
use super::value::Digests;

/// How a payload differs from an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference<'i> {
    /// The fields whose values differ, with those of the image.
    pub fields: Vec<(Cow<'i, str>, &'i str)>,
    /// The payload has a field that the image does not have.
    pub has_more: bool,
}

/// Fields and their values as an object.
pub fn to_json(fields: &[(Cow<'_, str>, &str)]) -> String {
    let mut out = String::from("{");
    for (name, value) in fields {
        if out.len() > 1 {
            out.push(',');
        }
        write_string(&mut out, name);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}

/// A payload with all fields of its table: those that it does not have are NULL.
pub fn completed<'n>(payload: &str, names: impl Iterator<Item = &'n str>) -> String {
    let mut missing: Vec<&str> = names.collect();
    let _ = each_member(payload, |name, _| missing.retain(|known| *known.as_bytes() != *name));
    let mut changes = Changes::default();
    for name in missing {
        changes.set(name.into(), "null");
    }
    let whole = Splice::of(payload, &changes).map(|splice| splice.to_json());
    whole.unwrap_or_else(|| payload.to_owned())
}

/// Compares a payload with the image of its row. Values are compared as JSON; an absent
/// field is NULL, as it is for a row. `ignored` is a field of the payload that images
/// never have.
pub fn difference<'i>(
    payload: &str,
    image: &'i str,
    ignored: &str,
    digests: &Digests,
) -> Difference<'i> {
    if payload == image {
        return Difference::default();
    }
    let mut said = BTreeMap::new();
    let is_object = each_member(payload, |name, value| {
        said.insert(name, value);
    });
    let mut difference = Difference { has_more: is_object.is_none(), ..Difference::default() };
    for (name, value) in members(image).unwrap_or_default() {
        let is_same = match said.remove(&name) {
            Some(said) => said == value || digests.same(said, value),
            None => value == "null",
        };
        if !is_same && let Ok(name) = into_text(name) {
            difference.fields.push((name, value));
        }
    }
    difference.has_more |= said.keys().any(|name| **name != *ignored.as_bytes());
    difference
}

/// The names of the fields that [`difference`] finds, of the image and then of the
/// payload.
pub fn differing_names(
    payload: &str,
    image: &str,
    ignored: &str,
    digests: &Digests,
) -> Vec<String> {
    let difference = difference(payload, image, ignored, digests);
    let mut names: Vec<_> =
        difference.fields.into_iter().map(|(name, _)| name.into_owned()).collect();
    if difference.has_more {
        let known: BTreeSet<_> =
            members(image).into_iter().flatten().map(|(name, _)| name).collect();
        let said = members(payload).into_iter().flatten().map(|(name, _)| name);
        let more = said.filter(|name| !known.contains(name) && **name != *ignored.as_bytes());
        let more: BTreeSet<_> = more.filter_map(|name| into_text(name).ok()).collect();
        names.extend(more.into_iter().map(Cow::into_owned));
    }
    names
}

fn into_text(name: Cow<'_, [u8]>) -> Result<Cow<'_, str>, std::str::Utf8Error> {
    match name {
        Cow::Borrowed(name) => std::str::from_utf8(name).map(Cow::Borrowed),
        Cow::Owned(name) => {
            String::from_utf8(name).map(Cow::Owned).map_err(|error| error.utf8_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(payload: &str, image: &str) -> (String, bool) {
        let digests = Digests::new(|| ());
        let difference = difference(payload, image, "workspace_id", &digests);
        (to_json(&difference.fields), difference.has_more)
    }

    fn same() -> (String, bool) {
        ("{}".to_owned(), false)
    }

    #[test]
    fn spelling_and_absent_nulls_are_no_difference() {
        let image = r#"{"id":"a","title":"é","note":null,"tags":[1,2]}"#;
        assert_eq!(found(image, image), same());
        assert_eq!(found(r#"{"tags":[1, 2],"title":"\u00e9","id":"a"}"#, image), same());
        let said = r#"{"id":"a","title":"é","note":null,"tags":[1,2],"workspace_id":"w"}"#;
        assert_eq!(found(said, image), same());
    }

    #[test]
    fn what_differs_has_the_values_of_the_image() {
        let image = r#"{"id":"a","title":"t","n":"1.50","done":false}"#;
        let said = r#"{"id":"a","title":"T","n":1.5,"title":"t"}"#;
        assert_eq!(found(said, image), (r#"{"n":"1.50","done":false}"#.to_owned(), false));
        assert_eq!(found(r#"{"id":"a"}"#, r#"{"id":"a","n":0}"#), (r#"{"n":0}"#.to_owned(), false));
    }

    #[test]
    fn a_completed_payload_has_every_field() {
        let names = ["id", "title", "note"];
        let whole = |payload| completed(payload, names.into_iter());
        assert_eq!(whole(r#"{"title":"t","x":1}"#), r#"{"title":"t","x":1,"id":null,"note":null}"#);
        assert_eq!(whole(r#"{"id":1,"title":2,"note":3}"#), r#"{"id":1,"title":2,"note":3}"#);
    }

    #[test]
    fn a_field_that_no_row_has_is_a_difference() {
        assert_eq!(found(r#"{"id":"a","x":1}"#, r#"{"id":"a"}"#), ("{}".to_owned(), true));
        assert_eq!(found("[]", r#"{"id":null}"#), ("{}".to_owned(), true));
    }

    #[test]
    fn the_names_that_differ_are_those_of_both_sides() {
        let names = |payload, image| {
            let digests = Digests::new(|| ());
            differing_names(payload, image, "workspace_id", &digests).join(" ")
        };
        let said = r#"{"id":"a","x":1,"n":1,"workspace_id":"w","x":2,"\ud800":3}"#;
        assert_eq!(names(said, r#"{"id":"a","n":2,"m":3}"#), "n m x");
        assert_eq!(names("[1]", r#"{"id":"a","n":null}"#), "id");
        assert_eq!(names(r#"{"id":"a"}"#, r#"{"id":"a","n":null}"#), "");
    }
}
