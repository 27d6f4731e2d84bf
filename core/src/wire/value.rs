//! Compares JSON texts by value.
//!
//! Key order, white space and escapes do not matter; the last of equal keys counts; the
//! order of an array and the literal of a number matter.
//!
//! Postgres accepts any nesting that its stack allows, and payloads can have any size.
//! So nothing recurses and no tree is built: each text is read once into a digest of
//! its value. Only the members of open objects are kept, 32 bytes each. The digest is a
//! pair of keyed hashes (SipHash) with random keys that last for one call: two values
//! collide with a probability of 2^-128, and callers cannot prepare a collision.

use std::hash::{BuildHasher, RandomState};

use uuid::Uuid;

use super::text;

/// Compares JSON texts, which must be valid.
pub struct Digests {
    hashing: Hashing,
    check_interrupts: fn(),
}

/// The maximal memory of a digest of one text: the members of its objects, in vectors
/// that double, and its longest string.
pub fn memory_for(json: &str) -> usize {
    let members = count(json, |byte| byte == b':');
    2 * members * size_of::<(Digest, Digest)>() + json.len()
}

/// The number of these bytes. Counted in bytes, so that the processor examines as many at a time
/// as fit its registers.
fn count(json: &str, is_one: impl Fn(u8) -> bool) -> usize {
    let parts = json.as_bytes().chunks(usize::from(u8::MAX));
    let in_part = |part: &[u8]| part.iter().map(|byte| u8::from(is_one(*byte))).sum::<u8>();
    parts.map(|part| usize::from(in_part(part))).sum()
}

/// Whether no value of this JSON text is nested deeper than `max`. The outermost
/// container is level 1, a container in it level 2.
pub fn is_shallow(json: &str, max: usize) -> bool {
    // Few texts have as many brackets, in strings or not.
    let brackets = count(json, |byte| matches!(byte, b'[' | b'{'));
    if brackets <= max {
        return true;
    }
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some(at) = rest.find(['"', '[', '{', ']', '}']) {
        let found = &rest[at..];
        let end = match found.as_bytes()[0] {
            b'"' => string_end(found).unwrap_or(found.len()),
            b'[' | b'{' if depth == max => return false,
            b'[' | b'{' => {
                depth += 1;
                1
            }
            _ => {
                depth = depth.saturating_sub(1);
                1
            }
        };
        rest = &found[end..];
    }
    true
}

/// The digest of a JSON value; `None` for invalid JSON.
pub type ValueDigest = Option<Digest>;

type Digest = (u64, u64);

/// The kind of a digested value: a string never equals a literal of the same bytes.
#[derive(Clone, Copy)]
enum Kind {
    /// A number, true, false or null, as written.
    Literal,
    String,
    Array,
    Element,
    Object,
    Member,
}

/// A container that is not closed yet.
enum Open {
    /// The digest of the elements so far.
    Array(Digest),
    /// Digests of keys and values, and the key whose value follows.
    Object { members: Vec<(Digest, Digest)>, key: Option<Digest> },
}

/// How values become digests.
enum Hashing {
    Keyed(RandomState, RandomState),
    /// The same for ever: SHA-1, cut to 128 bits.
    Stable,
}

/// The digest of a JSON text that may be stored, and compared with that of another text.
/// Who wants two values with one digest can find them, with much work.
pub fn stable_digest(json: &str, check_interrupts: fn()) -> Option<Uuid> {
    let digests = Digests { hashing: Hashing::Stable, check_interrupts };
    digests.of_value(json).map(|(high, low)| Uuid::from_u64_pair(high, low))
}

impl Digests {
    /// `check_interrupts` is called for every token: texts may be large.
    pub fn new(check_interrupts: fn()) -> Digests {
        Digests {
            hashing: Hashing::Keyed(RandomState::new(), RandomState::new()),
            check_interrupts,
        }
    }

    /// Whether both have the same value.
    pub fn same(&self, a: &str, b: &str) -> bool {
        self.of_value(a).is_some_and(|digest| self.of_value(b) == Some(digest))
    }

    fn digest(&self, kind: Kind, bytes: &[u8]) -> Digest {
        match &self.hashing {
            Hashing::Keyed(one, other) => {
                let value = (kind as u8, bytes);
                (one.hash_one(value), other.hash_one(value))
            }
            Hashing::Stable => {
                let value = [&[kind as u8], bytes].concat();
                Uuid::new_v5(&Uuid::NAMESPACE_OID, &value).as_u64_pair()
            }
        }
    }

    fn of_pair(&self, kind: Kind, (first, second): (Digest, Digest)) -> Digest {
        let words = [first.0, first.1, second.0, second.1];
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        self.digest(kind, &bytes)
    }

    pub fn of_value(&self, json: &str) -> ValueDigest {
        let mut open: Vec<Open> = Vec::new();
        let mut whole = None;
        let mut rest = json;
        while let Some(first) = rest.bytes().next() {
            let end = match first {
                b'"' => string_end(rest)?,
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' | b'[' | b'{' | b']' | b'}' => 1,
                _ => rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len()),
            };
            let (token, after) = rest.split_at(end);
            rest = after;
            (self.check_interrupts)();
            let value = match first {
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => continue,
                b'[' => {
                    open.push(Open::Array(self.digest(Kind::Array, &[])));
                    continue;
                }
                b'{' => {
                    open.push(Open::Object { members: Vec::new(), key: None });
                    continue;
                }
                b']' | b'}' => match open.pop()? {
                    Open::Array(digest) => digest,
                    Open::Object { members, .. } => self.of_members(members),
                },
                b'"' => {
                    let string = self.digest(Kind::String, &text::string_bytes(token)?);
                    if let Some(Open::Object { key: key @ None, .. }) = open.last_mut() {
                        *key = Some(string);
                        continue;
                    }
                    string
                }
                _ => self.digest(Kind::Literal, token.as_bytes()),
            };
            match open.last_mut() {
                Some(Open::Array(so_far)) => {
                    *so_far = self.of_pair(Kind::Element, (*so_far, value))
                }
                Some(Open::Object { members, key }) => members.push((key.take()?, value)),
                None => whole = Some(value),
            }
        }
        whole.filter(|_| open.is_empty())
    }

    fn of_members(&self, mut members: Vec<(Digest, Digest)>) -> Digest {
        // The sort is stable and dedup keeps the first of equals, which is now the
        // latest.
        members.reverse();
        members.sort_by_key(|(key, _)| *key);
        members.dedup_by_key(|(key, _)| *key);
        let empty = self.digest(Kind::Object, &[]);
        members.into_iter().fold(empty, |so_far, member| {
            self.of_pair(Kind::Element, (so_far, self.of_pair(Kind::Member, member)))
        })
    }
}

/// The end of the string at the start of `text`.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes()
        .enumerate()
        .skip(1)
        .find(|&(_, byte)| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })
        .map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn same(a: &str, b: &str) -> bool {
        Digests::new(|| ()).same(a, b)
    }

    #[test]
    fn many_of_one_byte_are_counted() {
        for many in [0, 1, 254, 255, 256, 257, 510, 511, 100_000] {
            let json = "[".repeat(many) + "é:";
            assert_eq!(count(&json, |byte| byte == b'['), many);
            assert_eq!(is_shallow(&json, 100), many <= 100);
        }
    }

    #[test]
    fn spelling_is_irrelevant() {
        for (a, b) in [
            (r#"{"a":1,"b":[true,null]}"#, r#" { "b" : [ true , null ] , "a" : 1 } "#),
            (r#"{"a":"\u0041\/é"}"#, r#"{"\u0061":"A/\u00E9"}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":"\u0000\ud800"}"#, r#"{"a":"\u0000\uD800"}"#),
            (r#"{"a":{},"b":[]}"#, r#"{"b":[],"a":{}}"#),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn content_is_not() {
        for (a, b) in [
            (r#"{"a":1}"#, r#"{"a":1.0}"#),
            (r#"{"a":1e2}"#, r#"{"a":1E2}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#),
            (r#"{"a":[1]}"#, r#"{"a":[1,1]}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":1}"#),
            (r#"{"a":"1"}"#, r#"{"a":1}"#),
            (r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":{}}"#, r#"{"a":[]}"#),
            (r#"{"a":"\ud800"}"#, r#"{"a":"\ud801"}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"c":1}}"#),
            (r#"{"a\"":"b"}"#, r#"{"a":"b"}"#),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn a_stored_digest_is_the_same_for_ever() {
        let digest = |json| stable_digest(json, || ()).unwrap().to_string();
        let stored = digest(r#"{"a":[1,"x",null],"b":{}}"#);
        assert_eq!(stored, "6dd8158c-a7ee-5f70-a269-6bafb92b6cb8");
        assert_eq!(digest(r#" {"b":{ }, "a":[1, "\u0078", null]}"#), stored);
        assert_ne!(digest(r#"{"a":[1,"x",null],"b":[]}"#), stored);
    }

    #[test]
    fn depth_is_not_limited() {
        let deep =
            |leaf: &str| format!("{}{leaf}{}", r#"{"a":["#.repeat(30_000), "]}".repeat(30_000));
        assert!(same(&deep("1"), &deep(" 1 ")));
        assert!(!same(&deep("1"), &deep("2")));
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        for (json, depth) in [
            ("{}", 1),
            (r#"{"v":1}"#, 1),
            (r#"{"v":[]}"#, 2),
            (r#"{"a":{},"b":[[1]],"c":{}}"#, 3),
            (r#"{"[[[[":"{{{{\"[[[["}"#, 1),
            (r#"{"a":"\\","b":{"c":"]]]"}}"#, 2),
        ] {
            assert!(is_shallow(json, depth), "{json}");
            assert!(!is_shallow(json, depth - 1), "{json}");
        }
        let deep =
            |levels: usize| format!(r#"{{"v":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(is_shallow(&deep(99), 100) && !is_shallow(&deep(100), 100));
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
            Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3i32).prop_map(Value::from),
            "[a\"\\\\\u{7}é]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[ab\"]{0,2}", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(a in values(), b in values()) {
            let (compact, pretty) = (a.to_string(), serde_json::to_string_pretty(&a).unwrap());
            prop_assert!(same(&compact, &pretty));
            prop_assert_eq!(same(&compact, &b.to_string()), a == b);
        }

        #[test]
        fn depth_is_that_of_the_tree(value in values(), max in 0..5usize) {
            prop_assert_eq!(is_shallow(&value.to_string(), max), depth(&value) <= max);
        }

        #[test]
        fn any_text_is_survived(a: String, b in "[\\[\\]{}\",:\\\\u0-9a ]{0,30}") {
            same(&a, &b);
            same(&b, &b);
        }
    }
}
