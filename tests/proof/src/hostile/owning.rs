//! Private records of users, tables and fields with hostile names: each payload
//! is stored byte for byte but for the member that the server adds, and it is
//! added if and only if it is not there.

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;
use sync_ext_model::Pull;
use sync_ext_model::refusal::unexpected;

use super::arguments::Kept;
use super::calls::{ask, ask_like, compare};
use super::governing::{be, be_trusted};
use super::push::{Pusher, check_push};
use super::value;
use crate::common::tally::Tally;

const WORKSPACE: &str = "of its own";

/// A user's workspace and table, which are gone in the end.
pub fn own(
    pusher: &mut Pusher,
    kept: &mut Kept,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    let name = |random: &mut StdRng, max: usize| {
        let text = value::text(random).replace('\0', "0");
        if (1..=max).contains(&text.len()) { text } else { format!("a{}", random.random::<u8>()) }
    };
    let (user, field, table) = (name(random, 256), name(random, 128), name(random, 120) + "?mine");
    if field == "id" || field == "workspace_id" {
        return Ok(());
    }
    let expected = pusher.model.register(None, &table, "id", Some(&field), false);
    let sql = "select sync_register_table($1, owner_field => $2)::text";
    compare(pusher, sql, &[&table, &field], expected)?;
    let expected = pusher.model.create(None, WORKSPACE, &user);
    let sql = "select sync_create_workspace($1, $2)::text";
    compare(pusher, sql, &[&WORKSPACE, &user], expected)?;
    be(pusher, &user)?;
    let count = *[1, 2, 9].choose(random).unwrap_or(&1);
    let payloads: Vec<String> = (0..count).map(|_| payload(random, &field, &user)).collect();
    let ops = ops(&table, &payloads);
    push(pusher, &user, &ops)?;
    push(pusher, &user, &ops).with_context(|| format!("sent again: {payloads:?}"))?;
    pull(pusher, kept, &user)?;
    let stored = pusher.model.head(WORKSPACE);
    tally.add("private payloads compared", stored as u64);

    be_trusted(pusher)?;
    let other = if user == "bob" { "ann" } else { "bob" };
    let expected = pusher.model.set_member(None, WORKSPACE, other, "editor");
    let sql = "select sync_set_member($1, $2, 'editor')::text";
    compare(pusher, sql, &[&WORKSPACE, &other], expected)?;
    be(pusher, other)?;
    pull(pusher, kept, other)?;
    be_trusted(pusher)?;
    let expected = pusher.model.drop_workspace(None, WORKSPACE, 10_000);
    compare(pusher, "select sync_drop_workspace($1)::text", &[&WORKSPACE], expected)?;
    let expected = pusher.model.unregister(None, &table);
    compare(pusher, "select sync_unregister_table($1)::text", &[&table], expected)
}

/// An object, in which the owner may be named.
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

fn ops(table: &str, payloads: &[String]) -> String {
    let op = |(place, payload): (usize, &String)| {
        let stamp = json!({"deviceId": "d", "hlc": "h", "clock": 1,
                           "opId": format!("00000000-0000-4000-8000-{place:012x}")});
        let table = json!(table);
        format!(
            r#"{{"tableName":{table},"operation":"put","pk":"{place}","payload":{payload},"stamp":{stamp}}}"#
        )
    };
    let ops: Vec<String> = payloads.iter().enumerate().map(op).collect();
    format!("[{}]", ops.join(","))
}

fn push(pusher: &mut Pusher, user: &str, ops: &str) -> Result<()> {
    pusher.at += 1;
    let expected = pusher.model.push(Some(user), WORKSPACE, ops, pusher.at).map_err(unexpected)?;
    let sql = "select sync_push($1, $2::text::json)::text";
    let reply = ask(pusher, sql, &[&WORKSPACE, &ops], None)?.context("a reply")?;
    check_push(&reply, &expected, &mut Tally::default()).with_context(|| format!("as {user:?}"))
}

fn pull(pusher: &mut Pusher, kept: &mut Kept, user: &str) -> Result<()> {
    let (user, workspace) = (Some(user.to_owned()), WORKSPACE.to_owned());
    let pull = Pull { user, workspace, limit: Some(1000), ..Pull::default() };
    let expected = pusher.model.pull(&pull);
    let sql = "select sync_pull($1, page_limit => 1000)::text";
    let reply = ask_like(pusher, sql, &[&WORKSPACE], &expected)?.context("a reply")?;
    kept.all.check_pull(&pull, reply, &expected.map_err(unexpected)?, true).map(drop)
}
