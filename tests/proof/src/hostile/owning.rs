//! Private records of users, tables and fields with hostile names: each payload
//! is stored byte for byte but for the member that the server adds, and it is
//! added if and only if it is not there.

use anyhow::{Context, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::calls::ask;
use super::expect::{MAX_DEPTH, MAX_PAYLOAD, Told, depth, told};
use super::governing::{be, be_trusted};
use super::push::Pusher;
use super::value;
use crate::tally::Tally;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    #[serde(borrow, default)]
    changes: Vec<Change<'a>>,
    #[serde(default)]
    results: Vec<Answer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change<'a> {
    pk: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    error_code: Option<String>,
    #[serde(default)]
    replayed: bool,
}

/// A user's workspace and table, which are gone in the end.
pub fn own(pusher: &mut Pusher, random: &mut StdRng, tally: &mut Tally) -> Result<()> {
    let name = |random: &mut StdRng, max: usize| {
        let text = value::text(random).replace('\0', "0");
        if (1..=max).contains(&text.len()) { text } else { format!("a{}", random.random::<u8>()) }
    };
    let (user, field, table) = (name(random, 256), name(random, 128), name(random, 120) + "?mine");
    if field == "id" || field == "workspace_id" {
        return Ok(());
    }
    let workspace = "of its own";
    let sql = "select sync_register_table($1, owner_field => $2)::text";
    ask(pusher, sql, &[&table, &field], None)?;
    ask(pusher, "select sync_create_workspace($1, $2)::text", &[&workspace, &user], None)?;
    be(pusher, &user)?;
    let count = *[1, 2, 9].choose(random).unwrap_or(&1);
    let payloads: Vec<String> = (0..count).map(|_| payload(random, &field, &user)).collect();
    let stored = push(pusher, workspace, &table, &payloads, (&field, &user), false)?;
    push(pusher, workspace, &table, &payloads, (&field, &user), true)
        .with_context(|| format!("sent again: {payloads:?}"))?;
    check_pulled(pusher, workspace, &payloads, &stored, (&field, &user))?;
    tally.add("private payloads compared", stored.len() as u64);

    be_trusted(pusher)?;
    let other = if user == "bob" { "ann" } else { "bob" };
    let sql = "select sync_set_member($1, $2, 'editor')::text";
    ask(pusher, sql, &[&workspace, &other], None)?;
    be(pusher, other)?;
    let reply = ask(pusher, "select sync_pull($1)::text", &[&workspace], None)?;
    ensure!(
        reply.context("a reply")?.starts_with(r#"{"changes":[],"#),
        "{other} is shown {user:?}'s"
    );
    be_trusted(pusher)?;
    let sql = "select sync_drop_workspace($1)::text";
    let reply = ask(pusher, sql, &[&workspace], None)?.unwrap_or_default();
    let rows = 2 * stored.len();
    ensure!(
        reply == format!(r#"{{"dropped":true,"rowsErased":{rows},"hasMore":false}}"#),
        "{reply}"
    );
    ask(pusher, "select sync_unregister_table($1)::text", &[&table], None).map(drop)
}

/// An object, in which the owner may be told.
fn payload(random: &mut StdRng, field: &str, user: &str) -> String {
    let object = value::object(random);
    let key = json!(field).to_string();
    let whose = match random.random_range(0..6) {
        0..3 => json!(user).to_string(),
        3 => escaped(user),
        4 => value::string(random),
        _ => value::value(random),
    };
    let rest = &object[1..object.len() - 1];
    let comma = if rest.trim().is_empty() { "" } else { "," };
    match random.random_range(0..5) {
        0 => format!("{{{key}:{whose}{comma}{rest}}}"),
        1 => format!("{{{rest}{comma}{key} :{whose}}}"),
        2 => format!("{{{}:{whose}{comma}{rest}}}", escaped(field)),
        _ => object,
    }
}

/// A text as a JSON string of nothing but escapes.
fn escaped(text: &str) -> String {
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}

/// Pushes them; gives the places of those that are stored.
fn push(
    pusher: &mut Pusher,
    workspace: &str,
    table: &str,
    payloads: &[String],
    (field, user): (&str, &str),
    again: bool,
) -> Result<Vec<usize>> {
    let op = |(place, payload): (usize, &String)| {
        let stamp = json!({"deviceId": "d", "hlc": "h", "clock": 1,
                           "opId": format!("00000000-0000-4000-8000-{place:012x}")});
        let table = json!(table);
        format!(
            r#"{{"tableName":{table},"operation":"put","pk":"{place}","payload":{payload},"stamp":{stamp}}}"#
        )
    };
    let ops: Vec<String> = payloads.iter().enumerate().map(op).collect();
    let ops = format!("[{}]", ops.join(","));
    let sql = "select sync_push($1, $2::text::json)::text";
    let reply = ask(pusher, sql, &[&workspace, &ops], None)?.context("a reply")?;
    let answers = serde_json::from_str::<Reply>(&reply)?.results;
    ensure!(answers.len() == payloads.len(), "{reply}");
    let mut stored = Vec::new();
    for (place, (answer, payload)) in answers.iter().zip(payloads).enumerate() {
        let expected = match told(payload, field) {
            _ if payload.len() > MAX_PAYLOAD || depth(payload) > MAX_DEPTH => Some("OVERSIZED"),
            Told::Nothing => None,
            Told::Name(name) if name == user => None,
            _ => Some("UNAUTHORIZED"),
        };
        ensure!(
            answer.error_code.as_deref() == expected,
            "{expected:?} is due for {user:?} by {field:?} of {payload}: {reply}"
        );
        if expected.is_none() {
            ensure!(answer.replayed == again, "{payload}: {reply}");
            stored.push(place);
        }
    }
    Ok(stored)
}

fn check_pulled(
    pusher: &mut Pusher,
    workspace: &str,
    payloads: &[String],
    stored: &[usize],
    (field, user): (&str, &str),
) -> Result<()> {
    let sql = "select sync_pull($1, page_limit => 1000)::text";
    let reply = ask(pusher, sql, &[&workspace], None)?.context("a reply")?;
    let changes = serde_json::from_str::<Reply>(&reply)?.changes;
    ensure!(changes.len() == stored.len(), "{} of {}: {reply}", changes.len(), stored.len());
    for (change, place) in changes.iter().zip(stored) {
        let (sent, found) = (&payloads[*place], change.payload.get());
        ensure!(change.pk == place.to_string(), "{reply}");
        let is_right = match told(sent, field) {
            Told::Nothing => is_filled(sent, found, field, user),
            _ => sent == found,
        };
        ensure!(is_right, "{sent} of {user:?} by {field:?} is stored as {found}");
    }
    Ok(())
}

/// The same but for one member more, at the end, which names the user.
fn is_filled(sent: &str, found: &str, field: &str, user: &str) -> bool {
    let open = sent.trim_end().strip_suffix('}').unwrap_or(sent);
    let comma = if open.trim_end().ends_with('{') { "" } else { "," };
    let added = found.strip_prefix(open).and_then(|rest| rest.strip_prefix(comma));
    added.is_some_and(|added| {
        let added: Option<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_str(&format!("{{{added}")).ok();
        added.is_some_and(|added| added.len() == 1 && added.get(field) == Some(&json!(user)))
    })
}
