//! An object in which some members get other values, the rest byte for byte.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use super::fields::each_member;
use super::text::write_string;

/// Names and the values that they get, as JSON texts, in the order in which they were
/// first set.
#[derive(Clone, Debug, Default)]
pub struct Changes<'a> {
    by_name: BTreeMap<Cow<'a, str>, (usize, &'a str)>,
}

impl<'a> Changes<'a> {
    pub fn set(&mut self, name: Cow<'a, str>, value: &'a str) {
        let last = self.by_name.len();
        self.by_name.entry(name).or_insert((last, value)).1 = value;
    }

    /// The changes as an object.
    pub fn to_json(&self) -> String {
        let fields: Vec<_> =
            self.by_name.iter().map(|(name, (_, value))| (name.clone(), *value)).collect();
        super::image::to_json(&fields)
    }
}

/// The parts of an object after its changes.
pub struct Splice<'s> {
    before: Vec<&'s str>,
    appended: String,
    after: &'s str,
}

impl<'s> Splice<'s> {
    /// `None` when the text is not an object. Of members with one name the last one
    /// changes; a name that is not there is appended, after the last member.
    pub fn of(object: &'s str, changes: &'s Changes<'_>) -> Option<Splice<'s>> {
        let mut places: BTreeMap<&str, Range<usize>> = BTreeMap::new();
        let mut is_empty = true;
        each_member(object, |name, value| {
            is_empty = false;
            // A name that is not UTF-8 matches no change.
            let name = std::str::from_utf8(&name).unwrap_or("");
            if let Some((name, _)) = changes.by_name.get_key_value(name) {
                // The value is a part of the object.
                let start = value.as_ptr() as usize - object.as_ptr() as usize;
                places.insert(name, start..start + value.len());
            }
        })?;
        let mut changed: Vec<(Range<usize>, &str)> = Vec::new();
        let mut new: Vec<(usize, &str, &str)> = Vec::new();
        for (name, (order, value)) in &changes.by_name {
            match places.remove(&**name) {
                Some(place) => changed.push((place, value)),
                None => new.push((*order, name, value)),
            }
        }
        changed.sort_unstable_by_key(|(place, _)| place.start);
        new.sort_unstable();

        let end = object.rfind('}')?;
        let mut before = Vec::with_capacity(2 * changed.len() + 1);
        let mut written = 0;
        for (place, value) in changed {
            before.extend([&object[written..place.start], value]);
            written = place.end;
        }
        before.push(&object[written..end]);
        let mut appended = String::new();
        for (_, name, value) in new {
            if !is_empty {
                appended.push(',');
            }
            is_empty = false;
            write_string(&mut appended, name);
            appended.push(':');
            appended.push_str(value);
        }
        Some(Splice { before, appended, after: &object[end..] })
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        let before: usize = self.before.iter().map(|part| part.len()).sum();
        before + self.appended.len() + self.after.len()
    }

    pub fn to_json(&self) -> String {
        let mut json = String::with_capacity(self.size());
        json.extend(self.before.iter().copied());
        json.push_str(&self.appended);
        json.push_str(self.after);
        json
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::wire::fields::members;

    fn spliced(object: &str, changes: &[(&'static str, &'static str)]) -> String {
        let mut all = Changes::default();
        for (name, value) in changes {
            all.set((*name).into(), value);
        }
        let splice = Splice::of(object, &all).unwrap();
        let json = splice.to_json();
        assert_eq!(json.len(), splice.size());
        json
    }

    #[test]
    fn what_is_not_changed_stays_byte_for_byte() {
        for (object, changes, expected) in [
            ("{}", &[("a", "1")][..], r#"{"a":1}"#),
            ("{ }\n", &[("a", "1"), ("b", "{}")], "{ \"a\":1,\"b\":{}}\n"),
            (r#"{ "a" : 1.50 , "b":[1, 2] }"#, &[("a", "2")], r#"{ "a" : 2 , "b":[1, 2] }"#),
            (r#"{"a":1e400,"b":"\u0000"}"#, &[("c", "3")], r#"{"a":1e400,"b":"\u0000","c":3}"#),
            (r#"{"a":"}"}"#, &[("b", "\"}\"")], r#"{"a":"}","b":"}"}"#),
            (r#"{"\ud800":1,"a":2}"#, &[("a", "3")], r#"{"\ud800":1,"a":3}"#),
        ] {
            assert_eq!(spliced(object, changes), expected);
        }
    }

    #[test]
    fn of_equal_names_the_last_one_changes_however_it_is_spelled() {
        assert_eq!(
            spliced(r#"{"a":1,"\u0061":2,"b":{"a":3}}"#, &[("a", "9")]),
            r#"{"a":1,"\u0061":9,"b":{"a":3}}"#
        );
    }

    #[test]
    fn new_names_are_appended_in_the_order_in_which_they_were_first_set() {
        assert_eq!(
            spliced(r#"{"z":0}"#, &[("c", "1"), ("a\"", "2"), ("c", "3")]),
            r#"{"z":0,"c":3,"a\"":2}"#
        );
    }

    #[test]
    fn what_is_not_an_object_has_no_members() {
        for text in ["[]", "1", "null", "\"{}\""] {
            assert!(Splice::of(text, &Changes::default()).is_none(), "{text}");
        }
    }

    /// Objects with white space, escaped names and duplicates.
    fn objects() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            r#""a""#,
            r#""\u0061""#,
            r#""b""#,
            r#""\"""#,
            r#""""#,
            r#""é""#,
            r#""\ud83d\ude00""#,
        ]);
        let value = prop::sample::select(vec![
            "1",
            "-0.10e+5",
            "\"}\"",
            "{\"a\":{}}",
            "[ ]",
            "null",
            "\"\\\\\"",
            "12345678901234567890",
        ]);
        let space = prop::sample::select(vec!["", " ", "\n\t"]);
        let member = (space.clone(), name, space.clone(), value, space.clone())
            .prop_map(|(a, name, b, value, c)| format!("{a}{name}{b}:{value}{c}"));
        (prop::collection::vec(member, 0..6), space)
            .prop_map(|(members, space)| format!("{space}{{{}}}{space}", members.join(",")))
    }

    proptest! {
        #[test]
        fn a_splice_is_what_a_map_says_and_keeps_all_other_bytes(
            object in objects(),
            names in prop::collection::vec(prop::sample::select(vec!["a", "b", "\"", "", "é", "😀", "new"]), 0..5),
        ) {
            let mut changes = Changes::default();
            let mut expected: Map<String, Value> = serde_json::from_str(&object).unwrap();
            for (place, name) in names.iter().enumerate() {
                let value = ["[7]", "\"new\"", "7"][place % 3];
                changes.set((*name).into(), value);
                expected.insert((*name).to_owned(), serde_json::from_str(value).unwrap());
            }
            let spliced = Splice::of(&object, &changes).unwrap().to_json();
            let found: Map<String, Value> = serde_json::from_str(&spliced).unwrap();
            prop_assert_eq!(found, expected);
            // The members in their order, those that did not change with their bytes.
            let before = members(&object).unwrap();
            let after = members(&spliced).unwrap();
            prop_assert!(after.len() >= before.len());
            for (place, (name, value)) in before.iter().enumerate() {
                prop_assert_eq!(&after[place].0, name);
                let is_last = before[place + 1..].iter().all(|(later, _)| later != name);
                let is_named = names.iter().any(|changed| changed.as_bytes() == &**name);
                if !(is_last && is_named) {
                    prop_assert_eq!(after[place].1, *value);
                }
            }
            prop_assert_eq!(Splice::of(&object, &Changes::default()).unwrap().to_json(), object);
        }
    }
}
