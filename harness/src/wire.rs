//! What a device and its server said to each other, recorded, and said again to another
//! server: its replies must be the same, and may have more keys.
//!
//! What a server issues differs from one to the other: proofs, page tokens, ids of
//! snapshots and of its own ops, times. Where the recorded reply has one that no request
//! named, the live one takes its place from then on, in requests too.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use postgres::types::ToSql;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

#[derive(Serialize, Deserialize)]
pub struct Said {
    pub request: Value,
    pub reply: Value,
}

/// The recordings with this name, one of each version.
pub fn recordings(name: &str) -> Result<Vec<(PathBuf, Vec<Said>)>> {
    let mut found = Vec::new();
    for version in fs::read_dir(folder())? {
        let path = version?.path().join(name);
        if path.exists() {
            found.push((path.clone(), read(&path)?));
        }
    }
    Ok(found)
}

pub fn of_version(version: &str, name: &str) -> Result<Vec<Said>> {
    read(&folder().join(version).join(name))
}

/// Writes a recording, one line for a request and one for its reply.
pub fn record(version: &str, name: &str, said: &[Said]) -> Result<()> {
    let path = folder().join(version).join(name);
    fs::create_dir_all(folder().join(version))?;
    let lines: Vec<String> = said
        .iter()
        .map(|Said { request, reply }| format!("{{\"request\": {request},\n \"reply\": {reply}}}"))
        .collect();
    Ok(fs::write(path, format!("[{}]\n", lines.join(",\n")))?)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/wire")
}

fn read(path: &Path) -> Result<Vec<Said>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// A statement that calls a function, with its arguments as text.
pub fn statement(sql: &str, arguments: &[Option<&str>]) -> Value {
    json!({"sql": sql, "arguments": arguments})
}

/// The reply to that, or to other statements, which have none: `{"run": ...}`.
pub fn execute(client: &mut Client, request: &Value) -> Value {
    if let Some(sql) = request["run"].as_str() {
        return client.batch_execute(sql).map_or_else(|error| failure(&error), |()| Value::Null);
    }
    let sql = request["sql"].as_str().expect("a statement");
    let arguments: Vec<Option<&str>> =
        request["arguments"].as_array().expect("arguments").iter().map(Value::as_str).collect();
    let arguments: Vec<&(dyn ToSql + Sync)> =
        arguments.iter().map(|argument| argument as &(dyn ToSql + Sync)).collect();
    match client.query_one(sql, &arguments) {
        Ok(row) => {
            let text: Option<String> = row.get(0);
            text.map_or(Value::Null, |text| {
                serde_json::from_str(&text).unwrap_or(Value::String(text))
            })
        }
        Err(error) => failure(&error),
    }
}

fn failure(error: &postgres::Error) -> Value {
    let error = error.as_db_error().unwrap_or_else(|| panic!("not of the server: {error}"));
    json!({"sqlState": error.code().code(), "message": error.message()})
}

/// Says it all again.
pub fn replay(said: &[Said], mut answer: impl FnMut(&Value) -> Value) -> Result<()> {
    let mut issued = Issued::default();
    for (number, Said { request, reply }) in said.iter().enumerate() {
        issued.asked += &request.to_string();
        let request = issued.in_request(request);
        let live = answer(&request);
        issued
            .compare(reply, &live, "reply")
            .with_context(|| format!("request {number}, {request}, is answered {live}"))?;
    }
    Ok(())
}

/// What servers issued: recorded, and live.
#[derive(Default)]
struct Issued {
    live: HashMap<String, String>,
    /// All requests, as recorded.
    asked: String,
}

impl Issued {
    fn in_request(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let exact = self.live.get(text);
                Value::String(exact.cloned().unwrap_or_else(|| self.within(text)))
            }
            Value::Array(all) => all.iter().map(|value| self.in_request(value)).collect(),
            Value::Object(all) => {
                all.iter().map(|(key, value)| (key.clone(), self.in_request(value))).collect()
            }
            _ => value.clone(),
        }
    }

    /// In a text that contains them, such as ops.
    fn within(&self, text: &str) -> String {
        self.live
            .iter()
            .fold(text.to_owned(), |text, (recorded, live)| text.replace(recorded, live))
    }

    fn compare(&mut self, recorded: &Value, live: &Value, place: &str) -> Result<()> {
        match (recorded, live) {
            (Value::Object(recorded), Value::Object(live)) => {
                self.compare_keys(recorded, live, place)
            }
            (Value::Array(recorded), Value::Array(live)) => {
                ensure!(
                    recorded.len() == live.len(),
                    "{place}: {} became {}",
                    recorded.len(),
                    live.len()
                );
                for (number, (recorded, live)) in recorded.iter().zip(live).enumerate() {
                    self.compare(recorded, live, &format!("{place}[{number}]"))?;
                }
                Ok(())
            }
            (Value::String(recorded), Value::String(live)) => {
                self.compare_text(recorded, live, place)
            }
            _ if recorded == live => Ok(()),
            _ if is_time(recorded) && is_time(live) => Ok(()),
            _ => bail!("{place}: {recorded} became {live}"),
        }
    }

    fn compare_keys(
        &mut self,
        recorded: &Map<String, Value>,
        live: &Map<String, Value>,
        place: &str,
    ) -> Result<()> {
        for (key, recorded) in recorded {
            let place = format!("{place}.{key}");
            let live = live.get(key).with_context(|| format!("{place} is missing"))?;
            self.compare(recorded, live, &place)?;
        }
        Ok(())
    }

    fn compare_text(&mut self, recorded: &str, live: &str, place: &str) -> Result<()> {
        let is_new = !self.live.contains_key(recorded) && !self.asked.contains(recorded);
        if is_new && shape(recorded).is_some() {
            ensure!(shape(recorded) == shape(live), "{place}: {recorded} became {live}");
            self.live.insert(recorded.to_owned(), live.to_owned());
        }
        let expected = self.live.get(recorded).map_or(recorded, String::as_str);
        let is_same = without_names(expected) == without_names(live);
        ensure!(is_same, "{place}: {expected} became {live}");
        Ok(())
    }
}

/// A refusal of an unknown field names those that are known: later servers know more.
fn without_names(text: &str) -> Cow<'_, str> {
    static NAMES: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("^(unknown field `.*`, expected one of) .* (at line)").unwrap()
    });
    NAMES.replace(text, "$1 $2")
}

/// Seconds since 1970.
fn is_time(value: &Value) -> bool {
    value.as_u64().is_some_and(|seconds| (1_500_000_000..10_000_000_000).contains(&seconds))
}

/// The form of what a server issues; `None` for another text. Proofs and page tokens have
/// none that clients know, but for how they begin.
fn shape(text: &str) -> Option<usize> {
    static SHAPES: LazyLock<[Regex; 5]> = LazyLock::new(|| {
        [
            r"^p\d+\.[0-9a-f]+\.",
            r"^s\d+\.[0-9a-f]+\.",
            r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            r"^\d{13}:\d{4}:\$server$",
            r"^20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00)",
        ]
        .map(|pattern| Regex::new(pattern).unwrap())
    });
    SHAPES.iter().position(|shape| shape.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROOF: [&str; 2] =
        ["p1.2.0943e289d10d5db3bebf674d639f9f7e", "p1.2.ffffe289d10d5db3bebf674d639f9f7e"];

    fn said(request: Value, reply: Value) -> Said {
        Said { request, reply }
    }

    /// Recorded replies to two requests, beside the live ones.
    fn replayed(recorded: [Value; 2], live: [Value; 2]) -> Result<Vec<Value>> {
        let [first, second] = recorded;
        let ask = json!({"arguments": [PROOF[0], format!("[{:?}]", PROOF[0])]});
        let (mut live, mut asked) = (live.into_iter(), Vec::new());
        replay(&[said(json!({"op": "a"}), first), said(ask, second)], |request| {
            asked.push(request.clone());
            live.next().unwrap()
        })?;
        Ok(asked)
    }

    #[test]
    fn what_a_server_issued_is_carried_over() {
        let [recorded, live] = PROOF.map(|proof| json!({"proof": proof, "at": 1_795_221_979}));
        let asked = replayed([recorded.clone(), recorded], [live.clone(), live]).unwrap();
        assert_eq!(asked[1], json!({"arguments": [PROOF[1], format!("[{:?}]", PROOF[1])]}));
    }

    #[test]
    fn new_keys_are_allowed() {
        let more = json!({"a": [{"b": 1, "new": 2}], "new": 3});
        replayed([json!({"a": [{"b": 1}]}), json!(1)], [more, json!(1)]).unwrap();
    }

    #[test]
    fn anything_else_is_not() {
        let was = json!({"a": [{"b": 1, "proof": PROOF[0]}], "c": null});
        for (from, to) in [
            (r#""b":1,"#, ""),
            (r#""b":1"#, r#""b":2"#),
            (r#""b":1"#, r#""b":"1""#),
            (r#""c":null"#, r#""c":{}"#),
            ("[{", r#"[{"b":1},{"#),
            (PROOF[0], "s1.0943e289d10d5db3bebf674d639f9f7e.22"),
            (PROOF[0], ""),
        ] {
            let live = was.to_string().replace(from, to);
            let live: Value = serde_json::from_str(&live).unwrap();
            assert_ne!(live, was, "{from}");
            assert!(replayed([was.clone(), json!(1)], [live, json!(1)]).is_err(), "{from}");
        }
        // What was issued stays, and what a request named is the request's.
        let [recorded, live] = PROOF.map(|proof| json!(proof));
        assert!(
            replayed([recorded.clone(), recorded.clone()], [live.clone(), recorded.clone()])
                .is_err()
        );
        assert!(replayed([json!(1), recorded], [json!(1), live]).is_err());
    }
}
