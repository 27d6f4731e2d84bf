//! Texts and JSON values that are easily misread.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Pieces of a JSON string, as they stand between its quotes.
const PIECES: [&str; 38] = [
    "a",
    "é",
    "e\u{301}",
    "א\u{202e}ب",
    "😀",
    "👩\u{200d}👩\u{200d}👧",
    "\u{feff}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{1ffff}",
    "\u{10ffff}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{e000}",
    "漢字",
    r"\u0000",
    r"\ud800",
    r"\uDFFF",
    r"\ud83d\ude00",
    r"\ude00\ud83d",
    r"\ud800\ud800\udc00",
    r"\ud83dx",
    r"\uFEFF",
    r"\u001f",
    r"\u0022",
    r"\u005C",
    r"\/",
    r"\b\f\n\r\t",
    r#"\""#,
    r"\\",
    r"\\u0000",
    "'; drop table sync_ext.record; --",
    "$1 $$ %s%n%99999d",
    "../../etc/passwd",
    "{\\\"a\\\":[1]}",
    "null",
    " ",
];

/// Words that mean something in one place or another.
const WORDS: [&str; 14] = [
    "put",
    "delete",
    "PUT",
    "Delete",
    "upsert",
    "notes",
    "NOTES",
    "",
    "0",
    "00000000-0000-4000-8000-00000000000A",
    "{00000000-0000-4000-8000-000000000001}",
    "urn:uuid:00000000-0000-4000-8000-000000000001",
    "00000000000040008000000000000001",
    "0000000000-00-4000-8000-000000000001",
];

const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "-1",
    "1.0",
    "0.1e1",
    "1e0",
    "1E+2",
    "1e-2",
    "1e999",
    "-1e999",
    "1e99999999999",
    "0e0",
    "2147483647",
    "2147483648",
    "4294967296",
    "9007199254740990",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.30000000000000004",
];

/// The lengths of names that are just allowed, and their neighbours.
const LENGTHS: [usize; 13] = [0, 1, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1024, 1025];

/// A JSON string.
pub fn string(random: &mut StdRng) -> String {
    let inside = match random.random_range(0..8) {
        0 => WORDS.choose(random).copied().unwrap_or_default().to_owned(),
        1 => long(random),
        _ => pieces(random, 5),
    };
    format!("\"{inside}\"")
}

/// Pieces of the same kind up to a length in decoded bytes, or one byte more.
fn long(random: &mut StdRng) -> String {
    let length = *LENGTHS.choose(random).unwrap_or(&1);
    let (piece, bytes) =
        *[("a", 1), ("é", 2), (r"\u00e9", 2), ("😀", 4), (r"\ud83d\ude00", 4), (r"\n", 1)]
            .choose(random)
            .unwrap_or(&("a", 1));
    format!("{}{}", piece.repeat(length / bytes), "b".repeat(length % bytes))
}

fn pieces(random: &mut StdRng, max: usize) -> String {
    (0..random.random_range(0..=max)).filter_map(|_| PIECES.choose(random).copied()).collect()
}

/// A JSON string that is no name's problem: neither empty nor too long, no NUL
/// and no lone surrogate.
pub fn harmless_string(random: &mut StdRng) -> String {
    let inside: String = (0..random.random_range(1..=3))
        .filter_map(|_| PIECES.choose(random).copied())
        .filter(|piece| !piece.contains(r"\u") || piece.starts_with(r"\u0022"))
        .collect();
    format!("\"x{inside}\"")
}

pub fn number(random: &mut StdRng) -> String {
    match random.random_range(0..6) {
        0 => format!("1{}", "0".repeat(random.random_range(1..1000))),
        1 => format!("0.{}1", "0".repeat(random.random_range(1..1000))),
        2 => format!("{}e{}", random.random::<i64>(), random.random::<i32>()),
        _ => NUMBERS.choose(random).copied().unwrap_or("0").to_owned(),
    }
}

/// Any JSON value.
pub fn value(random: &mut StdRng) -> String {
    match random.random_range(0..16) {
        0..=4 => string(random),
        5..=7 => number(random),
        8 => "null".to_owned(),
        9 => if random.random() { "true" } else { "false" }.to_owned(),
        10 => "[]".to_owned(),
        11 => "{}".to_owned(),
        12 => format!("[{},{}]", value(random), value(random)),
        13 => nested(random.random_range(1..200), "1"),
        _ => object(random),
    }
}

/// An object, possibly with a key twice.
pub fn object(random: &mut StdRng) -> String {
    let members: Vec<String> = (0..random.random_range(0..4))
        .map(|_| format!("{}{}:{}", space(random), string(random), value(random)))
        .collect();
    format!("{{{}{}}}", members.join(","), space(random))
}

/// Objects in arrays in objects; `depth` counts both.
pub fn nested(depth: usize, leaf: &str) -> String {
    let (pairs, odd) = (depth / 2, depth % 2 == 1);
    let (open, close) = if odd { ("[", "]") } else { ("", "") };
    format!("{}{open}{leaf}{close}{}", r#"{"a":["#.repeat(pairs), "]}".repeat(pairs))
}

pub fn space(random: &mut StdRng) -> &'static str {
    ["", "", "", " ", "\n", "\t\r\n ", "    "].choose(random).copied().unwrap_or_default()
}

/// A text as an SQL argument: not JSON, with NUL characters in it at times.
pub fn text(random: &mut StdRng) -> String {
    match random.random_range(0..10) {
        0 => "a\0b".to_owned(),
        1 => long(random),
        2 => WORDS.choose(random).copied().unwrap_or_default().to_owned(),
        _ => pieces(random, 4),
    }
}

/// A scope as JSON, or almost one.
pub fn scope(random: &mut StdRng) -> String {
    match random.random_range(0..12) {
        0 => "null".to_owned(),
        1 => "\"\\u0000\"".to_owned(),
        2 => "\"\\ud800\"".to_owned(),
        3 => format!("\"{}\"", "a".repeat(random.random_range(255..258))),
        4 => "\"\\u0061\"".to_owned(),
        5 => "7".to_owned(),
        at => format!("\"{}\"", ["", "a", "a", "b", "b", "é"][at - 6]),
    }
}
