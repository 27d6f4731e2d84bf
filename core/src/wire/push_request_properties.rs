//! Arbitrary batches: every element is read as it would be alone, and the parser does
//! not panic. `PROPTEST_CASES=100000` for a long run.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

fn parse(ops: &str, max_ops: usize) -> Result<Vec<Parsed<'_>>, SyncError> {
    super::parse(ops, max_ops, || ())
}

/// Members of a valid op. Each may be repeated, removed, or given another value.
const GOOD: [(&str, &str); 8] = [
    ("tableName", "\"t\""),
    ("operation", "\"put\""),
    ("pk", "\"p\""),
    ("payload", "{\"\\ud800\":1e999}"),
    ("deviceId", "\"d\""),
    ("opId", "\"00000000-0000-4000-8000-00000000000a\""),
    ("hlc", "\"h\""),
    ("clock", "1"),
];

const PIECES: [&str; 16] = [
    "",
    "a",
    "é",
    "😀",
    "\u{feff}",
    "\u{ffff}",
    r"\u0000",
    r"\ud800",
    r"\udc00",
    r"\ud83d\ude00",
    r#"\""#,
    r"\\",
    r"\/",
    r"\u0070k",
    "put",
    "delete",
];

fn string() -> impl Strategy<Value = String> {
    vec(select(&PIECES[..]), 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn key() -> impl Strategy<Value = String> {
    let own = select(&NAMES[..]).prop_map(|name| format!("\"{name}\""));
    prop_oneof![3 => own, 1 => string()]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(&["null", "true", "false", "{}", "[]", "-0", "9007199254740992"][..])
            .prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,5})?",
        string(),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(" ,\n"))),
            vec((key(), inner), 0..4).prop_map(object),
        ]
    })
}

fn object(members: Vec<(String, String)>) -> String {
    let members: Vec<_> = members.iter().map(|(key, value)| format!("{key}\t:{value}")).collect();
    format!(" {{{}}}", members.join(","))
}

/// A valid op with this number of changes to its members.
fn op_with(changes: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    vec((any::<Index>(), key(), value(), 0..3), changes).prop_map(|changes| {
        let good = GOOD.iter().map(|(key, value)| (format!("\"{key}\""), value.to_string()));
        let mut members: Vec<_> = good.collect();
        for (at, key, value, change) in changes {
            match change {
                0 if !members.is_empty() => drop(members.remove(at.index(members.len()))),
                1 if !members.is_empty() => {
                    let at = at.index(members.len());
                    members[at].1 = value;
                }
                _ => members.insert(at.index(members.len() + 1), (key, value)),
            }
        }
        object(members)
    })
}

/// An element and whether it must be accepted.
fn element() -> impl Strategy<Value = (String, bool)> {
    prop_oneof![
        op_with(0..1).prop_map(|op| (op, true)),
        op_with(1..4).prop_map(|op| (op, false)),
        value().prop_map(|value| (value, false)),
    ]
}

fn batch_of(elements: &[(String, bool)]) -> String {
    let texts: Vec<&str> = elements.iter().map(|(text, _)| text.as_str()).collect();
    format!(" [{}]", texts.join(","))
}

fn outcome(item: &Parsed<'_>) -> String {
    format!("{item:?}")
}

proptest! {
    #[test]
    fn every_element_is_read_as_it_would_be_alone(elements in vec(element(), 0..8)) {
        let batch = batch_of(&elements);
        let items = parse(&batch, elements.len()).unwrap();
        prop_assert_eq!(items.len(), elements.len());
        for (item, (text, is_good)) in items.iter().zip(&elements) {
            let alone = format!("[{text}]");
            let alone = parse(&alone, 1).unwrap();
            prop_assert_eq!(outcome(item), outcome(&alone[0]));
            prop_assert!(item.1.is_ok() || !is_good, "{:?}", item.1);
        }
        if let Some(fewer) = elements.len().checked_sub(1) {
            let refused = matches!(parse(&batch, fewer), Err(SyncError::TooManyOps { .. }));
            prop_assert!(refused);
        }
    }

    #[test]
    fn a_torn_batch_is_survived(
        elements in vec(element(), 1..4),
        tears in vec((any::<Index>(), 0..4usize, ".{0,3}"), 1..4),
    ) {
        let mut batch: Vec<char> = batch_of(&elements).chars().collect();
        for (from, length, piece) in tears {
            let from = from.index(batch.len() + 1);
            let to = (from + length).min(batch.len());
            batch.splice(from..to, piece.chars());
        }
        let batch: String = batch.into_iter().collect();
        let items = parse(&batch, 100);
        // Only valid JSON reaches the parser; it must accept every valid array.
        if let Ok(json) = serde_json::from_str::<&RawValue>(&batch) {
            let peer: Result<Vec<&RawValue>, _> = serde_json::from_str(json.get());
            prop_assert_eq!(items.map(|items| items.len()).ok(), peer.map(|all| all.len()).ok());
        }
    }
}
