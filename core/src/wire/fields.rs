//! An object's members by name, as raw text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::text::{string, write_string};

/// The members of an object that have one of `N` names, in the order of the names. The
/// last of repeated keys counts. Other keys are ignored.
pub type Fields<'a, const N: usize> = [Option<&'a str>; N];

/// Reads an object; fails on any other JSON value.
#[derive(Clone, Copy)]
pub struct FieldsOf<'n, const N: usize>(pub &'n [&'n str; N]);

impl<'n, const N: usize> FieldsOf<'n, N> {
    /// `None` if the text is not an object.
    pub fn read<'a>(self, object: &'a str) -> Option<Fields<'a, N>> {
        self.deserialize(&mut serde_json::Deserializer::from_str(object)).ok()
    }
}

impl<'a, const N: usize> DeserializeSeed<'a> for FieldsOf<'_, N> {
    type Value = Fields<'a, N>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a, const N: usize> Visitor<'a> for FieldsOf<'_, N> {
    type Value = Fields<'a, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut fields = [None; N];
        while let Some(place) = map.next_key_seed(KeyOf(self.0))? {
            match place {
                Some(place) => fields[place] = Some(map.next_value::<&'a RawValue>()?.get()),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

/// A key's index among the names. Keys are read as bytes: a string with a lone
/// surrogate is not a `str`, and such a key must not make the whole object invalid.
struct KeyOf<'n, const N: usize>(&'n [&'n str; N]);

impl<'a, const N: usize> DeserializeSeed<'a> for KeyOf<'_, N> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<const N: usize> Visitor<'_> for KeyOf<'_, N> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| name.as_bytes() == key))
    }
}

/// A name as bytes, as a lone surrogate is no `str`, and a value as raw text.
pub type Member<'a> = (Cow<'a, [u8]>, &'a str);

/// All members of an object in their order, with duplicates. `None` when the text is not
/// an object.
pub fn members(object: &str) -> Option<Vec<Member<'_>>> {
    let mut members = Vec::new();
    each_member(object, |name, value| members.push((name, value)))?;
    Some(members)
}

/// The same one by one, as an object may have more members than fit into memory.
pub fn each_member<'a>(object: &'a str, each: impl FnMut(Cow<'a, [u8]>, &'a str)) -> Option<()> {
    serde_json::Deserializer::from_str(object).deserialize_map(Members(each)).ok()
}

/// The members of an object whose names and values are texts; `None` if one is not.
pub fn text_members(object: &str) -> Option<Vec<(String, String)>> {
    let named = |(name, value): Member<'_>| {
        Some((String::from_utf8(name.into_owned()).ok()?, string(value)?.into_owned()))
    };
    members(object)?.into_iter().map(named).collect()
}

/// The names of the members of an object as a JSON array, with duplicates; `None` when
/// the text is not an object. A name that no text can hold is left out.
pub fn names(object: &str) -> Option<String> {
    let mut out = String::from("[");
    each_member(object, |name, _| {
        if let Ok(name) = std::str::from_utf8(&name)
            && !name.contains('\0')
        {
            if out.len() > 1 {
                out.push(',');
            }
            write_string(&mut out, name);
        }
    })?;
    out.push(']');
    Some(out)
}

struct Members<F>(F);

impl<'a, F: FnMut(Cow<'a, [u8]>, &'a str)> Visitor<'a> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            self.0(name, map.next_value::<&'a RawValue>()?.get());
        }
        Ok(())
    }
}

struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Cow<'a, [u8]>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Cow<'a, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_bytes<E>(self, name: &'a [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Reads an array of at most `max` elements, each with `element`. It stops at the next
/// element, so that the limit bounds the memory, not the input.
pub struct ArrayOf<'e, S> {
    pub element: S,
    pub max: usize,
    /// Called before each element.
    pub each: &'e dyn Fn(),
}

/// The result of reading an array.
pub enum Elements<T> {
    All(Vec<T>),
    /// It has more than `max` elements.
    TooMany,
    /// There is not enough memory for its elements.
    TooLarge,
}

impl<'a, S: DeserializeSeed<'a> + Copy> ArrayOf<'_, S> {
    /// `None` if the text is not an array, or `element` cannot read an element.
    pub fn read(self, array: &'a str) -> Option<Elements<S::Value>> {
        let mut cut = None;
        let visitor = ArrayVisitor { array: &self, cut: &mut cut };
        let read = serde_json::Deserializer::from_str(array).deserialize_seq(visitor);
        cut.or_else(|| read.ok().map(Elements::All))
    }
}

struct ArrayVisitor<'s, 'e, S, T> {
    array: &'s ArrayOf<'e, S>,
    /// Why reading stopped before the end.
    cut: &'s mut Option<Elements<T>>,
}

impl<'a, S: DeserializeSeed<'a> + Copy> Visitor<'a> for ArrayVisitor<'_, '_, S, S::Value> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() < self.array.max {
            (self.array.each)();
            let Some(element) = seq.next_element_seed(self.array.element)? else {
                return Ok(elements);
            };
            if elements.try_reserve(1).is_err() {
                *self.cut = Some(Elements::TooLarge);
                return Ok(elements);
            }
            elements.push(element);
        }
        if seq.next_element::<IgnoredAny>()?.is_some() {
            *self.cut = Some(Elements::TooMany);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_keys_counts_however_it_is_spelled() {
        let fields = FieldsOf(&["pk", "clock"]).read(r#"{"pk":1,"x":[{}],"\u0070k" : "b" }"#);
        assert_eq!(fields, Some([Some(r#""b""#), None]));
    }

    #[test]
    fn a_lone_surrogate_in_an_unused_key_or_value_harms_nothing() {
        let fields = FieldsOf(&["pk"]).read(r#"{"\ud800":"\udc00","pk":"\ud800"}"#);
        assert_eq!(fields, Some([Some(r#""\ud800""#)]));
    }

    #[test]
    fn numbers_of_any_size_and_values_of_any_depth_are_kept_as_they_are() {
        let deep = format!(r#"{{"pk":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(FieldsOf(&["pk"]).read(&deep).unwrap()[0].unwrap().len(), 200_000);
        let huge = format!(r#"{{"pk":1{}e99999}}"#, "0".repeat(1000));
        assert!(FieldsOf(&["pk"]).read(&huge).unwrap()[0].unwrap().ends_with("e99999"));
    }

    #[test]
    fn names_are_read_whatever_the_values_are() {
        let object = r#"{"\u0061\"":"\u0000","b":["\ud800"],"b":{"c":1},"\ud800":1,"\u0000":2}"#;
        assert_eq!(names(object).unwrap(), r#"["a\"","b","b"]"#);
        assert_eq!(names("{}").unwrap(), "[]");
        assert_eq!(names("1"), None);
    }

    #[test]
    fn what_is_not_an_object_is_none() {
        for text in ["1", "null", r#""a""#, "[]", "true", "1e999"] {
            assert_eq!(FieldsOf(&["pk"]).read(text), None, "{text}");
        }
    }

    #[test]
    fn an_array_is_read_up_to_its_limit() {
        let read = |text: &'static str| {
            ArrayOf { element: FieldsOf(&["a"]), max: 2, each: &|| () }.read(text)
        };
        assert!(matches!(read("[{},{}]"), Some(Elements::All(all)) if all.len() == 2));
        assert!(matches!(read("[{},{},{}]"), Some(Elements::TooMany)));
        assert!(matches!(read("[{},{},1]"), Some(Elements::TooMany)));
        assert!(read("[{},1]").is_none());
        assert!(read("{}").is_none());
    }
}
