//! Are two JSON texts the same value?
//!
//! Key order, white space and escapes are irrelevant; of equal keys the last
//! one counts; array order and the literal of a number are not irrelevant.
//! Postgres accepts any nesting that its stack allows, so nothing here may
//! recurse: a text becomes a flat list of nodes, and two lists are compared
//! with a stack of our own.

use std::borrow::Cow;

use super::text;

enum Node<'a> {
    /// A number, true, false or null, as written.
    Literal(&'a str),
    String(Cow<'a, [u8]>),
    /// Places of the elements.
    Array(Vec<usize>),
    /// Keys in byte order, each once, and places of their values.
    Object(Vec<(Cow<'a, [u8]>, usize)>),
}

/// Both texts must be valid JSON; what is not is equal to nothing.
pub fn same_value(a: &str, b: &str) -> bool {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => same_nodes(&a, &b),
        _ => false,
    }
}

fn same_nodes(a: &[Node<'_>], b: &[Node<'_>]) -> bool {
    let (Some(last_a), Some(last_b)) = (a.len().checked_sub(1), b.len().checked_sub(1)) else {
        return false;
    };
    let mut pairs = vec![(last_a, last_b)];
    while let Some((x, y)) = pairs.pop() {
        match (&a[x], &b[y]) {
            (Node::Literal(x), Node::Literal(y)) if x == y => {}
            (Node::String(x), Node::String(y)) if x == y => {}
            (Node::Array(x), Node::Array(y)) if x.len() == y.len() => {
                pairs.extend(x.iter().copied().zip(y.iter().copied()));
            }
            (Node::Object(x), Node::Object(y))
                if x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.0 == y.0) =>
            {
                pairs.extend(x.iter().zip(y).map(|(x, y)| (x.1, y.1)));
            }
            _ => return false,
        }
    }
    true
}

/// A container that is not closed yet.
enum Open<'a> {
    Array(Vec<usize>),
    Object { members: Vec<(Cow<'a, [u8]>, usize)>, key: Option<Cow<'a, [u8]>> },
}

/// The value's nodes, each after those it contains: the last is the whole.
fn parse(json: &str) -> Option<Vec<Node<'_>>> {
    let mut nodes = Vec::new();
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut rest = json;
    while let Some(first) = rest.bytes().next() {
        let node = match first {
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => {
                rest = &rest[1..];
                continue;
            }
            b'[' => {
                open.push(Open::Array(Vec::new()));
                rest = &rest[1..];
                continue;
            }
            b'{' => {
                open.push(Open::Object { members: Vec::new(), key: None });
                rest = &rest[1..];
                continue;
            }
            b']' | b'}' => {
                rest = &rest[1..];
                match open.pop()? {
                    Open::Array(elements) => Node::Array(elements),
                    Open::Object { members, .. } => Node::Object(last_of_each(members)),
                }
            }
            b'"' => {
                let (token, after) = rest.split_at(string_end(rest)?);
                rest = after;
                let bytes = text::string_bytes(token)?;
                if let Some(Open::Object { key: key @ None, .. }) = open.last_mut() {
                    *key = Some(bytes);
                    continue;
                }
                Node::String(bytes)
            }
            _ => {
                let end = rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
                let (token, after) = rest.split_at(end);
                rest = after;
                Node::Literal(token)
            }
        };
        nodes.push(node);
        match open.last_mut() {
            Some(Open::Array(elements)) => elements.push(nodes.len() - 1),
            Some(Open::Object { members, key }) => members.push((key.take()?, nodes.len() - 1)),
            None => {}
        }
    }
    open.is_empty().then_some(nodes)
}

/// Where the string that `text` begins with ends.
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

fn last_of_each<'a>(mut members: Vec<(Cow<'a, [u8]>, usize)>) -> Vec<(Cow<'a, [u8]>, usize)> {
    // The sort is stable and dedup keeps the first of equals: latest first.
    members.reverse();
    members.sort_by(|a, b| a.0.cmp(&b.0));
    members.dedup_by(|a, b| a.0 == b.0);
    members
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn spelling_is_irrelevant() {
        for (a, b) in [
            (r#"{"a":1,"b":[true,null]}"#, r#" { "b" : [ true , null ] , "a" : 1 } "#),
            (r#"{"a":"\u0041\/é"}"#, r#"{"\u0061":"A/\u00E9"}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":"\u0000\ud800"}"#, r#"{"a":"\u0000\uD800"}"#),
            (r#"{"a":{},"b":[]}"#, r#"{"b":[],"a":{}}"#),
        ] {
            assert!(same_value(a, b), "{a} {b}");
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
            assert!(!same_value(a, b), "{a} {b}");
        }
    }

    #[test]
    fn depth_is_not_limited() {
        let deep =
            |leaf: &str| format!("{}{leaf}{}", r#"{"a":["#.repeat(200_000), "]}".repeat(200_000));
        assert!(same_value(&deep("1"), &deep(" 1 ")));
        assert!(!same_value(&deep("1"), &deep("2")));
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
            prop_assert!(same_value(&compact, &pretty));
            prop_assert_eq!(same_value(&compact, &b.to_string()), a == b);
        }

        #[test]
        fn any_text_is_survived(a: String, b in "[\\[\\]{}\",:\\\\u0-9a ]{0,30}") {
            same_value(&a, &b);
            same_value(&b, &b);
        }
    }
}
