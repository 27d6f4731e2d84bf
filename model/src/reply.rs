//! Replies of a real server, in the form in which the model gives them.

use anyhow::{Context, Result, ensure};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::json::{Members, text};

/// A reply in which payloads are texts, an echoed opId is as it was given, and
/// the words of refusals are left out where the contract does not fix them.
pub fn read(reply: &str) -> Result<Value> {
    if reply.starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(reply)?;
        return elements.into_iter().map(|raw| read(raw.get())).collect();
    }
    if !reply.starts_with('{') {
        return serde_json::from_str(reply).with_context(|| reply.to_owned());
    }
    let members = Members::of(reply).with_context(|| reply.to_owned())?;
    let mut object = Map::new();
    for (key, raw) in members.0 {
        let key = String::from_utf8(key)?;
        let value = match &*key {
            "payload" | "patch" if raw != "null" => json!(raw),
            "opId" => echoed(raw),
            _ => read(raw)?,
        };
        ensure!(object.insert(key, value).is_none(), "a key twice: {reply}");
    }
    if let Some(code) = object.get("errorCode").and_then(Value::as_str) {
        let is_fixed = ["CONFLICT", "UNAUTHORIZED"].contains(&code);
        let words = object.get("error").and_then(Value::as_str).unwrap_or_default();
        ensure!(!words.is_empty(), "a refusal without words: {reply}");
        if !is_fixed {
            object.remove("error");
        }
    }
    Ok(Value::Object(object))
}

/// An opId: a plain text, or what was given, as it was written.
pub fn echoed(raw: &str) -> Value {
    match text(raw) {
        Some(plain) if !raw.contains('\\') => json!(plain),
        _ if raw == "null" => Value::Null,
        _ => json!(raw),
    }
}

/// Puts something else in the place of every `serverDeletedAt`.
pub fn map_times(reply: &mut Value, map: &mut impl FnMut(&Value) -> Value) {
    match reply {
        Value::Object(members) => {
            for (key, value) in members {
                match &**key {
                    "serverDeletedAt" => *value = map(value),
                    _ => map_times(value, map),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|it| map_times(it, map)),
        _ => {}
    }
}

/// A reply in which a delete's time is only there or not.
pub fn timeless(mut reply: Value) -> Value {
    map_times(&mut reply, &mut |time| json!(time.is_number() || time == "now"));
    reply
}
