//! Strings and numbers in raw JSON text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::Visitor;
use uuid::Uuid;

/// The contents of a string; `None` if the text is not a string, or contains a lone
/// surrogate, which UTF-8 cannot represent.
pub fn string(raw: &str) -> Option<Cow<'_, str>> {
    let quoted = raw.strip_prefix('"')?.strip_suffix('"')?;
    if quoted.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(quoted))
    }
}

/// The same for a string that may be long: also `None` if it has more than `max` bytes,
/// which is checked before decoding.
pub fn short_string(raw: &str, max: usize) -> Option<Cow<'_, str>> {
    // An escape of six bytes decodes to at least one byte.
    if raw.len() > 6 * max + 2 {
        return None;
    }
    string(raw).filter(|text| text.len() <= max)
}

pub fn is_string(raw: &str) -> bool {
    raw.starts_with('"')
}

pub fn is_object(raw: &str) -> bool {
    raw.starts_with('{')
}

pub fn is_number(raw: &str) -> bool {
    raw.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// The contents of a string as bytes, with a lone surrogate as the three bytes of its
/// code point (WTF-8): for comparing strings that need not be UTF-8.
pub fn string_bytes(raw: &str) -> Option<Cow<'_, [u8]>> {
    let quoted = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !quoted.contains('\\') {
        return Some(Cow::Borrowed(quoted.as_bytes()));
    }
    serde_json::Deserializer::from_str(raw).deserialize_bytes(Bytes).ok().map(Cow::Owned)
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

/// An integer from 0 to 2^53 - 1, the largest that every client's JSON number
/// holds exactly, written with digits only.
pub fn clock(raw: &str) -> Option<i64> {
    const MAX: i64 = (1 << 53) - 1;
    let digits_only = raw.bytes().all(|byte| byte.is_ascii_digit());
    raw.parse().ok().filter(|clock| digits_only && *clock <= MAX)
}

/// The maximal length of this text as a JSON string.
pub fn longest_string(text: &str) -> usize {
    // A control character becomes six bytes.
    6 * text.len() + 2
}

/// Appends `text` as a JSON string.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    // Most texts need no escape; this examines many bytes at a time.
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[written..at]);
        if escape.is_empty() {
            out.push_str(&format!("\\u{byte:04x}"));
        } else {
            out.push_str(escape);
        }
        written = at + 1;
    }
    out.push_str(&text[written..]);
    out.push('"');
}

fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

/// Appends a UUID, hyphenated, in lower case.
pub fn write_uuid(out: &mut String, uuid: Uuid) {
    out.push_str(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_string_is_decoded_once() {
        assert_eq!(string(r#""a\u00e9\n\\""#).as_deref(), Some("aé\n\\"));
        assert_eq!(string(r#""\ud83d\ude00""#).as_deref(), Some("😀"));
        assert_eq!(string(r#""""#).as_deref(), Some(""));
        for raw in [r#""\ud800""#, r#""\udc00x""#, "1", "null", "{}", "\""] {
            assert_eq!(string(raw), None, "{raw}");
        }
    }

    #[test]
    fn a_short_string_is_measured_decoded() {
        assert_eq!(short_string(r#""\u0061\u0061""#, 2).as_deref(), Some("aa"));
        assert_eq!(short_string(r#""\u0061\u0061a""#, 2), None);
        assert_eq!(short_string(r#""aaa""#, 2), None);
        assert_eq!(short_string("1", 2), None);
    }

    #[test]
    fn lone_surrogates_have_bytes_of_their_own() {
        let high = string_bytes(r#""\ud800""#).unwrap();
        assert_ne!(high, string_bytes(r#""\ud801""#).unwrap());
        assert_eq!(high, string_bytes(r#""\uD800""#).unwrap());
    }

    #[test]
    fn a_clock_is_digits_up_to_two_to_the_53() {
        assert_eq!(clock("0"), Some(0));
        assert_eq!(clock("9007199254740991"), Some(9007199254740991));
        for raw in [
            "9007199254740992",
            "-1",
            "-0",
            "1.0",
            "1e3",
            "\"1\"",
            "null",
            "",
            "+1",
            "99999999999999999999999",
        ] {
            assert_eq!(clock(raw), None, "{raw}");
        }
    }

    #[test]
    fn what_needs_an_escape_gets_the_shortest() {
        let written = |text: &str| {
            let mut json = String::new();
            write_string(&mut json, text);
            json
        };
        // Alone and among others: a text of one character must also be escaped.
        for (char, escape) in [
            ('"', r#"\""#),
            ('\\', r"\\"),
            ('\n', r"\n"),
            ('\r', r"\r"),
            ('\t', r"\t"),
            ('\u{0}', r"\u0000"),
            ('\u{1f}', r"\u001f"),
            (' ', " "),
            ('/', "/"),
            ('\u{7f}', "\u{7f}"),
            ('é', "é"),
        ] {
            assert_eq!(written(&char.to_string()), format!("\"{escape}\""));
            assert!(escape.len() + 2 <= longest_string(&char.to_string()));
            assert_eq!(written(&format!("a{char}b{char}")), format!("\"a{escape}b{escape}\""));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text: String) {
            let mut json = String::new();
            write_string(&mut json, &text);
            let read = string(&json);
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
            let peer: String = serde_json::from_str(&json).unwrap();
            prop_assert!(json.len() <= longest_string(&text));
            prop_assert_eq!(peer, text);
        }
    }
}
