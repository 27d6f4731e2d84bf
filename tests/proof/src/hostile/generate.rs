//! Batches of ops: good ones, and good ones changed into something else.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::value;

/// What an op says: its members as JSON texts, keys without their quotes. The
/// stamp, where there is one, holds members of its own.
#[derive(Clone)]
struct Sketch {
    flat: Vec<(String, String)>,
    stamp: Option<Vec<(String, String)>>,
}

/// A batch and which of its elements nobody has changed.
pub struct Batch {
    pub text: Vec<u8>,
    /// The places of ops that were good when they were made. Meaningful only
    /// while the text as a whole was not changed.
    pub untouched: Vec<usize>,
    /// The text as a whole was changed: it may be no JSON at all.
    pub is_torn: bool,
}

/// Registered by the run, with their pk fields; the second needs every kind of
/// care.
pub const TABLES: [(&str, &str); 2] =
    [("notes", "id"), ("\"n'\\\u{202e}😀\n; --", "\"k\\\u{301}\t$1")];

/// The second one has scopes.
pub fn scope_field(table: &str) -> Option<&'static str> {
    (table == TABLES[1].0).then_some("n")
}

/// What was made before, to be pushed again.
#[derive(Default)]
pub struct Past {
    elements: Vec<String>,
    puts: Vec<Put>,
    batches: Vec<Vec<u8>>,
}

/// A good put, in JSON texts.
#[derive(Clone)]
struct Put {
    table: String,
    pk: String,
    clock: u64,
    hlc: String,
    op_id: String,
}

const KEPT: usize = 64;

/// Keeps some of what it is given.
pub fn keep<T>(kept: &mut Vec<T>, one: T, random: &mut StdRng) {
    if kept.len() < KEPT {
        kept.push(one);
    } else {
        kept[random.random_range(0..KEPT)] = one;
    }
}

/// The next batch of a run.
pub fn batch(random: &mut StdRng, past: &mut Past, max_ops: usize) -> Batch {
    let count = match random.random_range(0..50) {
        0 => random.random_range(max_ops - 1..=max_ops + 1),
        1 => 0,
        2..=6 => random.random_range(8..20),
        _ => random.random_range(1..5),
    };
    if let Some(text) = past.batches.choose(random)
        && random.random_bool(0.05)
    {
        return Batch { text: text.clone(), untouched: Vec::new(), is_torn: false };
    }
    let mut elements: Vec<(String, bool)> = (0..count)
        .map(|_| match random.random_range(0..20) {
            0..=4 => {
                let (op, put) = good(random);
                put.into_iter().for_each(|put| keep(&mut past.puts, put, random));
                (op.print(random), true)
            }
            5 | 6 => match past.puts.choose(random) {
                Some(put) => (patch(&put.clone(), random).print(random), false),
                None => (good(random).0.print(random), true),
            },
            7 => (value::value(random), false),
            8 if !past.elements.is_empty() => {
                (past.elements.choose(random).cloned().unwrap_or_default(), false)
            }
            9 => (retouched(past, random), false),
            _ => (changed(random).print(random), false),
        })
        .collect();
    if let Some((element, _)) = elements.choose(random) {
        keep(&mut past.elements, element.clone(), random);
        if random.random_bool(0.05) {
            elements.push((element.clone(), false));
        }
    }
    elements.shuffle(random);
    let untouched = (0..elements.len()).filter(|place| elements[*place].1).collect();
    let texts: Vec<String> = elements
        .iter()
        .map(|(text, _)| format!("{}{text}{}", value::space(random), value::space(random)))
        .collect();
    let mut text = format!("{}[{}]", value::space(random), texts.join(",")).into_bytes();
    let is_torn = random.random_bool(0.15);
    if is_torn {
        for _ in 0..random.random_range(1..4) {
            tear(&mut text, random);
        }
    }
    keep(&mut past.batches, text.clone(), random);
    Batch { text, untouched, is_torn }
}

/// An earlier element with a space more, mostly the same op in other words; or
/// with one digit changed: the same opId with other content, or a new opId for
/// the same content.
fn retouched(past: &Past, random: &mut StdRng) -> String {
    let mut element = past.elements.choose(random).cloned().unwrap_or_else(|| "7".to_owned());
    let is_spaced = random.random_bool(0.5);
    let is_place = |byte: u8| if is_spaced { byte == b':' } else { byte.is_ascii_digit() };
    let places: Vec<usize> =
        element.bytes().enumerate().filter(|(_, byte)| is_place(*byte)).map(|(at, _)| at).collect();
    if let Some(at) = places.choose(random) {
        element.replace_range(at..&(at + 1), if is_spaced { ": " } else { "7" });
    }
    element
}

fn op_id(random: &mut StdRng) -> String {
    let id: u128 = random.random();
    let mut op_id = format!("{id:032x}");
    for at in [20, 16, 12, 8] {
        op_id.insert(at, '-');
    }
    if random.random_bool(0.2) {
        op_id = op_id.to_uppercase();
    }
    op_id
}

/// With what patches need, of a put.
fn good(random: &mut StdRng) -> (Sketch, Option<Put>) {
    let op_id = op_id(random);
    let (table, pk_field) = *TABLES.choose(random).unwrap_or(&TABLES[0]);
    let [table, pk_field] = [table, pk_field].map(|it| serde_json::Value::from(it).to_string());
    let pk = match random.random_range(0..4) {
        0 => value::harmless_string(random),
        _ => format!("\"{}\"", random.random_range(0..40)),
    };
    let (operation, payload) = match random.random_range(0..5) {
        0 => ("delete", "null".to_owned()),
        1 => ("put", format!("{{{pk_field}:{pk},\"n\":{}}}", value::value(random))),
        2 => ("put", format!("{{\"n\":{}}}", value::scope(random))),
        _ => ("put", format!("{{\"text\":{}}}", value::value(random))),
    };
    let (clock, hlc) = (random.random_range(0..60u64), value::harmless_string(random));
    let put = Put { table, pk, clock, hlc, op_id };
    let mut op = sketch(&put, operation, payload, random);
    let parent = match random.random_range(0..6) {
        0 => Some("\"none\"".to_owned()),
        1 => Some(format!("\"{}\"", put.op_id)),
        2 => Some("null".to_owned()),
        _ => None,
    };
    op.flat.extend(parent.map(|parent| ("parent".to_owned(), parent)));
    op.flat.shuffle(random);
    (op, (operation == "put").then_some(put))
}

fn sketch(of: &Put, operation: &str, payload: String, random: &mut StdRng) -> Sketch {
    let member = |(camel, snake): (&str, &str), value: String, random: &mut StdRng| {
        (if random.random_bool(0.7) { camel } else { snake }.to_owned(), value)
    };
    let mut flat = vec![
        member(("tableName", "table_name"), of.table.clone(), random),
        ("operation".to_owned(), format!("\"{operation}\"")),
        ("pk".to_owned(), of.pk.clone()),
        ("payload".to_owned(), payload),
    ];
    let mut stamp = vec![
        member(("deviceId", "device_id"), value::harmless_string(random), random),
        member(("opId", "op_id"), format!("\"{}\"", of.op_id), random),
        ("hlc".to_owned(), of.hlc.clone()),
        ("clock".to_owned(), of.clock.to_string()),
    ];
    stamp.shuffle(random);
    if random.random_bool(0.3) {
        flat.append(&mut stamp);
    }
    Sketch { flat, stamp: (!stamp.is_empty()).then_some(stamp) }
}

/// A patch of a put, with or without a condition; good or changed into something else.
fn patch(of: &Put, random: &mut StdRng) -> Sketch {
    let name = |random: &mut StdRng| match random.random_range(0..8) {
        0 => value::string(random),
        1 => value::harmless_string(random),
        2 => "\"\\u0074ext\"".to_owned(),
        3 | 4 => "\"n\"".to_owned(),
        _ => "\"text\"".to_owned(),
    };
    let object = |random: &mut StdRng, value: fn(&mut StdRng, &Put) -> String| {
        let members: Vec<String> = (0..random.random_range(1..4))
            .map(|_| format!("{}:{}{}", name(random), value::space(random), value(random, of)))
            .collect();
        format!("{{{}}}", members.join(","))
    };
    let payload = object(random, |random, _| match random.random_range(0..20) {
        0 => format!("\"{}\"", "x".repeat(random.random_range(900..2000))),
        _ => value::value(random),
    });
    let holder = |random: &mut StdRng, of: &Put| match random.random_range(0..10) {
        0 => "null".to_owned(),
        1 => value::value(random),
        _ => format!("\"{}\"", of.op_id),
    };
    let expected = match random.random_range(0..8) {
        0 => Some("\"none\"".to_owned()),
        1 => Some(holder(random, of)),
        2 => Some(object(random, holder)),
        3 => Some(value::value(random)),
        _ => None,
    };
    let (clock, hlc) = (of.clock + random.random_range(0..9), value::harmless_string(random));
    let patch = Put { clock, hlc, op_id: op_id(random), ..of.clone() };
    let mut op = sketch(&patch, "patch", payload, random);
    op.flat.push(("base".to_owned(), base(of, random)));
    if random.random_bool(0.2) {
        op.flat.push(("parent".to_owned(), value::value(random)));
    }
    op.flat.extend(expected.map(|expected| ("expected".to_owned(), expected)));
    op.flat.shuffle(random);
    if random.random_bool(0.3) {
        op.change(random);
    }
    op
}

fn base(of: &Put, random: &mut StdRng) -> String {
    let op_id = if random.random_bool(0.8) { "opId" } else { "op_id" };
    let mut members = vec![
        ("clock", of.clock.to_string()),
        ("hlc", of.hlc.clone()),
        (op_id, format!("\"{}\"", of.op_id)),
    ];
    members.shuffle(random);
    match random.random_range(0..20) {
        0 => members[random.random_range(0..3)].1 = value::value(random),
        1 => drop(members.pop()),
        2 => members.push(("clock", of.clock.saturating_sub(1).to_string())),
        3 => members.push(("opId", value::value(random))),
        _ => {}
    }
    let members: Vec<String> =
        members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn changed(random: &mut StdRng) -> Sketch {
    let (mut op, _) = good(random);
    for _ in 0..random.random_range(1..4) {
        op.change(random);
    }
    op
}

/// The other spelling of a key, if it has one.
fn respelled(key: &str) -> &str {
    match key {
        "tableName" => "table_name",
        "table_name" => "tableName",
        "deviceId" => "device_id",
        "device_id" => "deviceId",
        "opId" => "op_id",
        "op_id" => "opId",
        other => other,
    }
}

impl Sketch {
    fn change(&mut self, random: &mut StdRng) {
        if random.random_bool(0.1) {
            return self.change_stamp(random);
        }
        let in_stamp = random.random_bool(0.5);
        let members = match &mut self.stamp {
            Some(stamp) if in_stamp => stamp,
            _ => &mut self.flat,
        };
        if members.is_empty() {
            return;
        }
        let at = random.random_range(0..members.len());
        let (key, old) = members[at].clone();
        let anywhere = random.random_range(0..=members.len());
        if random.random_bool(0.003) {
            // Deeper than Postgres' parser goes, or nearly so.
            members[at].1 = value::nested(random.random_range(1000..20_000), "1");
            return;
        }
        match random.random_range(0..10) {
            0..=2 => members[at].1 = value::value(random),
            3 => drop(members.remove(at)),
            4 => members.insert(anywhere, (key, value::value(random))),
            5 => members.insert(anywhere, (respelled(&key).to_owned(), value::value(random))),
            6 => members[at].0 = escaped(&key, random),
            7 => {
                let other = random.random_range(0..members.len());
                members[at].1 = std::mem::replace(&mut members[other].1, old);
            }
            8 => {
                let key = value::string(random);
                members.insert(anywhere, (key[1..key.len() - 1].to_owned(), value::value(random)));
            }
            _ => self.change_payload(random),
        }
    }

    fn change_stamp(&mut self, random: &mut StdRng) {
        match (self.stamp.take(), random.random_range(0..3)) {
            (Some(mut stamp), 0) => self.flat.append(&mut stamp),
            (Some(stamp), 1) => {
                // Beside flat members of the same names, which then do not count.
                for (key, _) in &stamp {
                    self.flat.push((key.clone(), value::value(random)));
                }
                self.stamp = Some(stamp);
            }
            (stamp, _) => {
                self.flat.push(("stamp".to_owned(), value::value(random)));
                self.flat.extend(stamp.unwrap_or_default());
            }
        }
    }

    fn change_payload(&mut self, random: &mut StdRng) {
        let (_, pk_field) = *TABLES.choose(random).unwrap_or(&TABLES[0]);
        let pk_field = serde_json::Value::from(pk_field).to_string();
        let payload = match random.random_range(0..8) {
            6 => format!("{{\"n\":{},\"\\u006e\":{}}}", value::value(random), value::scope(random)),
            7 => format!("{{\"n\":{}}}", value::scope(random)),
            0 => format!("{{{pk_field}:{}}}", value::value(random)),
            4 => format!("{{{pk_field}:{}}}", random.random_range(0..40)),
            5 => format!("{{\"id\":{},\"\\u0069d\":\"7\"}}", value::value(random)),
            1 => format!("{{\"workspace_id\":{},\"id\":\"7\"}}", value::value(random)),
            2 => format!("{{\"text\":\"{}\"}}", "x".repeat(random.random_range(2000..2100))),
            _ => value::object(random),
        };
        self.flat.push(("payload".to_owned(), payload));
    }

    fn print(&self, random: &mut StdRng) -> String {
        let print = |members: &[(String, String)], random: &mut StdRng| -> Vec<String> {
            let colon = value::space(random);
            members.iter().map(|(key, value)| format!("\"{key}\"{colon}:{value}")).collect()
        };
        let mut members = print(&self.flat, random);
        if let Some(stamp) = &self.stamp {
            let stamp = print(stamp, random).join(",");
            let at = random.random_range(0..=members.len());
            members.insert(at, format!("\"stamp\":{{{stamp}}}"));
        }
        format!("{{{}}}", members.join(&format!("{},", value::space(random))))
    }
}

/// The same key with one of its letters as an escape.
fn escaped(key: &str, random: &mut StdRng) -> String {
    let at = random.random_range(0..key.len().max(1));
    match key.as_bytes().get(at) {
        Some(letter) if letter.is_ascii_alphanumeric() => {
            format!("{}\\u{letter:04x}{}", &key[..at], &key[at + 1..])
        }
        _ => key.to_owned(),
    }
}

/// Breaks the text of a batch somewhere, mostly so that it is JSON no more.
fn tear(text: &mut Vec<u8>, random: &mut StdRng) {
    if text.is_empty() {
        return;
    }
    let at = random.random_range(0..text.len());
    match random.random_range(0..8) {
        0 => text.truncate(at),
        1 => text[at] ^= 1 << random.random_range(0..8),
        2 => drop(text.remove(at)),
        3 => text.insert(at, random.random()),
        4 => {
            let end = random.random_range(at..text.len());
            let part = text[at..end].to_vec();
            text.splice(at..at, part);
        }
        5 => {
            let piece = *[",", "[", "]", "{", "}", "\"", ":", "\\", "\u{feff}", "0", "e", "-"]
                .choose(random)
                .unwrap_or(&",");
            text.splice(at..at, piece.bytes());
        }
        6 => {
            let start = random.random_range(0..=at);
            text.drain(start..at);
        }
        _ => *text = value::value(random).into_bytes(),
    }
}
