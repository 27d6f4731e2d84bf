//! JSON texts, read without losing how they are written.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// A string's contents; `None` for a lone surrogate.
pub fn text(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

/// A string of 1 to `max` bytes without NUL and lone surrogates.
pub fn name(raw: &str, max: usize) -> Option<String> {
    text(raw).filter(|name| is_name(name, max) && !name.contains('\0'))
}

pub fn is_name(name: &str, max: usize) -> bool {
    (1..=max).contains(&name.len())
}

pub fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// As the server writes it: without the short escapes of backspace and form feed.
pub fn compact(value: &Value) -> String {
    let written = value.to_string();
    let (mut compact, mut chars) = (String::with_capacity(written.len()), written.chars());
    while let Some(next) = chars.next() {
        match (next, if next == '\\' { chars.next() } else { None }) {
            (_, Some('b')) => compact += "\\u0008",
            (_, Some('f')) => compact += "\\u000c",
            (_, escaped) => compact.extend([next].into_iter().chain(escaped)),
        }
    }
    compact
}

/// How many containers the innermost value is in; brackets in strings are none.
pub fn depth(json: &str) -> usize {
    let (mut deepest, mut now, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' if !in_string => now -= 1,
            _ => {}
        }
    }
    deepest
}

/// An object's members in order; keys as bytes, for they may hold lone surrogates.
#[derive(Default)]
pub struct Members<'a>(pub Vec<(Vec<u8>, &'a str)>);

impl<'a> Members<'a> {
    /// `None` of what is no object.
    pub fn of(raw: &'a str) -> Option<Members<'a>> {
        serde_json::Deserializer::from_str(raw).deserialize_map(MembersVisitor).ok()
    }

    /// The last one of the name counts.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name.as_bytes()).map(|(_, raw)| *raw)
    }

    /// The first of the names that is there.
    pub fn first(&self, names: &[&str]) -> Option<&'a str> {
        names.iter().find_map(|name| self.get(name))
    }
}

struct MembersVisitor;

impl<'a> Visitor<'a> for MembersVisitor {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Bytes)? {
            members.push((key, map.next_value::<&'a RawValue>()?.get()));
        }
        Ok(Members(members))
    }
}

struct Bytes;

impl<'a> DeserializeSeed<'a> for Bytes {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// Are two texts the same JSON value? Key order, white space and escapes are
/// irrelevant, of equal keys the last one counts; the order of an array and the
/// literal of a number are not irrelevant.
pub fn is_same(one: &str, other: &str) -> bool {
    // Nothing recurses: nesting may be deep.
    let mut pairs = vec![(one, other)];
    while let Some((one, other)) = pairs.pop() {
        if one == other {
            continue;
        }
        match (Shape::of(one), Shape::of(other)) {
            (Shape::Object(one), Shape::Object(other)) if one.keys().eq(other.keys()) => {
                pairs.extend(one.into_values().zip(other.into_values()));
            }
            (Shape::Array(one), Shape::Array(other)) if one.len() == other.len() => {
                pairs.extend(
                    one.into_iter().zip(other).map(|(one, other)| (one.get(), other.get())),
                );
            }
            (Shape::Text(one), Shape::Text(other)) if one == other => {}
            _ => return false,
        }
    }
    true
}

enum Shape<'a> {
    Object(BTreeMap<Vec<u8>, &'a str>),
    Array(Vec<&'a RawValue>),
    Text(Vec<u8>),
    Literal,
}

impl<'a> Shape<'a> {
    fn of(raw: &'a str) -> Shape<'a> {
        if let Some(members) = Members::of(raw) {
            return Shape::Object(members.0.into_iter().collect());
        }
        if let Ok(elements) = serde_json::from_str(raw) {
            return Shape::Array(elements);
        }
        match serde_json::Deserializer::from_str(raw).deserialize_bytes(Bytes) {
            Ok(text) if raw.starts_with('"') => Shape::Text(text),
            _ => Shape::Literal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_and_not_texts() {
        let equal = [
            (r#"{"a":1,"b":[2,"x"]}"#, r#" { "b" : [2, "\u0078"],"a":1 } "#),
            (r#"{"a":1,"a":2}"#, r#"{"\u0061":2}"#),
            (r#"["\ud83d\ude00","\ud800"]"#, r#"["😀","\uD800"]"#),
            (r#"{"a\"":"\\"}"#, r#"{"a\u0022":"\u005c"}"#),
        ];
        for (one, other) in equal {
            assert!(is_same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("[1,2]", "[2,1]"),
            ("1", "1.0"),
            ("[]", "{}"),
            (r#""1""#, "1"),
            (r#"{"a":"b"}"#, r#"["a","b"]"#),
            ("[[1],2]", "[[1,2]]"),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn brackets_in_strings_are_no_containers() {
        assert_eq!([depth("1"), depth(r#"{"[":"\"{"}"#), depth("[[],[[]]]")], [0, 1, 3]);
    }

    #[test]
    fn control_characters_are_written_as_the_server_does() {
        let text = "\u{8}\u{c}\n\\b\u{1}\"";
        assert_eq!(compact(&text.into()), r#""\u0008\u000c\n\\b\u0001\"""#);
    }
}
