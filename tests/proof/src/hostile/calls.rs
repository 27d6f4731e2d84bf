//! Hostile arguments to the functions that take no batch. Each call must be
//! answered or refused exactly as the contract says; a token that was altered
//! must never be taken for a token.

use anyhow::{Context, Result, bail, ensure};
use postgres::types::ToSql;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::value::RawValue;

use super::arguments::{
    Tokens, filter, has_nul, is_workspace, limit, names, number, tables, workspace,
};
use super::generate::keep;
use super::pulling::Page;
use super::push::Pusher;
use super::{allowed, governing, operating, owning, pulling, value};
use crate::tally::Tally;

/// One call of one function.
pub fn call(
    pusher: &mut Pusher,
    tokens: &mut Tokens,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    tally.add("other calls", 1);
    match random.random_range(0..16) {
        0 => push_nothing(pusher, random),
        1..=2 => pulling::pull(pusher, tokens, random),
        3 => snapshot(pusher, tokens, random),
        4 => acknowledge(pusher, random),
        5 => forge(pusher, tokens, random, tally),
        6 => operating::collect(pusher, random),
        7 => register(pusher, random),
        8 => owning::own(pusher, random, tally),
        9 => governing::speak(pusher, random, tally),
        10..=11 => pulling::exchange(pusher, tokens, random, tally),
        12 => operating::collect_all(pusher, random),
        13 => operating::operate(pusher, random, tally),
        _ => governing::govern(pusher, random),
    }
}

/// Asks, and compares how it ended: `expected` is an SQLSTATE, or `None` for a
/// reply.
pub fn ask(
    pusher: &mut Pusher,
    sql: &str,
    arguments: &[&(dyn ToSql + Sync)],
    expected: Option<&str>,
) -> Result<Option<String>> {
    let context = || format!("{sql} with {arguments:?}");
    let statement = pusher.statement(sql)?;
    match pusher.client.query_one(&statement, arguments) {
        Ok(row) => {
            if let Some(expected) = expected {
                bail!("answered where {expected} is due: {}", context());
            }
            let reply: String = row.try_get::<_, Option<String>>(0)?.unwrap_or_default();
            if !reply.is_empty() {
                serde_json::from_str::<&RawValue>(&reply).with_context(context)?;
            }
            Ok(Some(reply))
        }
        Err(error) => {
            let code = allowed::code(&error).with_context(context)?;
            ensure!(Some(&*code) == expected, "{code} where {expected:?} is due: {}", context());
            Ok(None)
        }
    }
}

/// NULL is no array, and not an empty one either.
fn push_nothing(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let workspace = workspace(random);
    let expected = if has_nul([workspace.as_deref()]) { "22021" } else { "22023" };
    ask(pusher, "select sync_push($1, null)::text", &[&workspace], Some(expected)).map(drop)
}

fn snapshot(pusher: &mut Pusher, tokens: &mut Tokens, random: &mut StdRng) -> Result<()> {
    let (mut workspace, mut tables, limit) = (workspace(random), tables(random), limit(random));
    let token = match random.random_range(0..5) {
        0 => Some(value::text(random)),
        1..=2 => tokens.altered(random),
        _ => None,
    };
    // Half of the time with what it was made for.
    let made = tokens.pages.iter().find(|(ours, ..)| Some(ours) == token.as_ref());
    if let Some((_, of, with)) = made
        && random.random()
    {
        (workspace, tables) = (Some(of.clone()), with.clone());
    }
    let is_ours = made.is_none_or(|(_, of, with)| {
        Some(of) == workspace.as_ref() && filter(with) == filter(&tables)
    }) && (token.is_none() || made.is_some());
    let expected = if has_nul([workspace.as_deref(), token.as_deref()]) || has_nul(names(&tables)) {
        Some("22021")
    } else if !is_workspace(workspace.as_deref()) || !is_ours {
        Some("22023")
    } else {
        None
    };
    let sql = "select sync_snapshot($1, $2, $3, $4)::text";
    let arguments: [&(dyn ToSql + Sync); 4] = [&workspace, &token, &limit, &tables];
    let Some(reply) = ask(pusher, sql, &arguments, expected)? else { return Ok(()) };
    let Some(workspace) = workspace else { return Ok(()) };
    let page: Page = serde_json::from_str(&reply)?;
    for item in &page.items {
        let model = pusher.models.get(&workspace).context("items of nothing")?;
        let entry = model.log.get((item.server_version - 1) as usize).context("no such entry")?;
        let payload = item.payload.map(RawValue::get);
        ensure!(payload == entry.0.payload.as_deref() || entry.0.operation == "delete", "{reply}");
        ensure!(entry.1, "a loser is listed: {reply}");
    }
    if let Some(token) = page.next_page_token {
        keep(&mut tokens.pages, (token, workspace.clone(), tables), random);
    }
    if let Some(proof) = page.proof {
        keep(&mut tokens.proofs, (proof, workspace), random);
    }
    Ok(())
}

fn acknowledge(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let (workspace, version) = (workspace(random), number(random));
    let device = random.random_bool(0.9).then(|| value::text(random));
    let head = workspace.as_ref().and_then(|id| pusher.models.get(id)).map_or(0, |it| it.head());
    let expected = if has_nul([workspace.as_deref(), device.as_deref()]) {
        Some("22021")
    } else if !is_workspace(workspace.as_deref())
        || !is_workspace(device.as_deref())
        || version.is_none_or(|version| version < 0)
    {
        Some("22023")
    } else if version.is_some_and(|version| version > head) {
        Some("SX003")
    } else {
        None
    };
    let sql = "select sync_update_cursor($1, $2, $3)::text";
    ask(pusher, sql, &[&workspace, &device, &version], expected).map(drop)
}

/// A page token that somebody made who knows how ours are made: the extension
/// keeps no secret. It may be served or refused, and do no harm.
fn forge(
    pusher: &mut Pusher,
    tokens: &Tokens,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    let (workspace, tables, limit) = ("w", tables(random), limit(random));
    let token = tokens.forged(workspace, &tables, random);
    let sql = "select sync_snapshot($1, $2, $3, $4)::text";
    let statement = pusher.statement(sql)?;
    let arguments: [&(dyn ToSql + Sync); 4] = [&workspace, &token, &limit, &tables];
    match pusher.client.query_one(&statement, &arguments) {
        Ok(row) => {
            let reply: &str = row.get(0);
            serde_json::from_str::<Page>(reply).with_context(|| reply.to_owned())?;
            tally.add("forged page tokens served", 1);
        }
        Err(error) => {
            let code = allowed::code(&error).with_context(|| format!("{sql} with {token}"))?;
            let is_due =
                ["22023", "SX001"].contains(&&*code) || code == "22021" && has_nul(names(&tables));
            ensure!(is_due, "{error}: {sql} with {token}");
        }
    }
    Ok(())
}

/// A name is registered and unregistered again; those of the run stay.
fn register(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let name = random.random_bool(0.9).then(|| format!("{}.", value::text(random)));
    let field = random.random_bool(0.9).then(|| value::text(random));
    let owner_field = match random.random_range(0..6) {
        0 => field.clone(),
        1 => Some("workspace_id".to_owned()),
        2 => None,
        _ => Some(value::text(random)),
    };
    let is_name = |name: Option<&str>| name.is_some_and(|name| (1..=128).contains(&name.len()));
    let is_owner_field = |owner_field: &str| {
        is_name(Some(owner_field))
            && field.as_deref() != Some(owner_field)
            && owner_field != "workspace_id"
    };
    let expected = if has_nul([name.as_deref(), field.as_deref(), owner_field.as_deref()]) {
        Some("22021")
    } else if !is_name(name.as_deref())
        || !is_name(field.as_deref())
        || !owner_field.as_deref().is_none_or(is_owner_field)
    {
        Some("22023")
    } else {
        None
    };
    let sql = "select sync_register_table($1, $2, $3)::text";
    ask(pusher, sql, &[&name, &field, &owner_field], expected)?;
    let expected = has_nul([name.as_deref()]).then_some("22021");
    ask(pusher, "select sync_unregister_table($1)::text", &[&name], expected).map(drop)
}
