//! The primary key of a typed row with several columns: a JSON array of their texts.

use super::text::write_string;

/// `None` if one of them has no value.
pub fn join(parts: impl Iterator<Item = Option<impl AsRef<str>>>) -> Option<String> {
    let mut out = String::from("[");
    for part in parts {
        if out.len() > 1 {
            out.push(',');
        }
        write_string(&mut out, part?.as_ref());
    }
    out.push(']');
    Some(out)
}

/// `None` if it is not written as `join` writes it.
pub fn split(pk: &str) -> Option<Vec<String>> {
    let parts: Vec<String> = serde_json::from_str(pk).ok()?;
    let written = join(parts.iter().map(Some))?;
    (written == pk).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_several_columns_is_an_array_of_texts() {
        let parts = ["7", "a\"b", "é"].map(str::to_owned);
        let pk = join(parts.iter().map(Some)).unwrap();
        assert_eq!(pk, r#"["7","a\"b","é"]"#);
        assert_eq!(split(&pk).unwrap(), parts);
        assert_eq!(join([Some("7".to_owned()), None].into_iter()), None);
    }

    #[test]
    fn there_is_one_way_to_write_it() {
        for pk in [r#"["7", "a"]"#, r#"["\u0061"]"#, r#"[7]"#, r#"{"a":1}"#, "7", ""] {
            assert_eq!(split(pk), None, "{pk}");
        }
    }
}
