//! Hostile arguments to the functions that take no batch. Each call must be
//! answered or refused exactly as the contract says; a token that was altered
//! must never be taken for a token.

use anyhow::{Context, Result, bail, ensure};
use postgres::types::ToSql;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::arguments::{
    Tokens, filter, has_nul, is_proof, is_workspace, limit, names, number, tables, workspace,
};
use super::generate::keep;
use super::model::Model;
use super::push::Pusher;
use super::{allowed, governing, owning, value};
use crate::tally::Tally;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow, default)]
    changes: Vec<Change<'a>>,
    #[serde(borrow, default)]
    items: Vec<Change<'a>>,
    #[serde(default)]
    requires_snapshot: bool,
    next_page_token: Option<String>,
    proof: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change<'a> {
    server_version: i64,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// One call of one function.
pub fn call(
    pusher: &mut Pusher,
    tokens: &mut Tokens,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    tally.add("other calls", 1);
    match random.random_range(0..12) {
        0 => push_nothing(pusher, random),
        1..=2 => pull(pusher, tokens, random),
        3 => snapshot(pusher, tokens, random),
        4 => acknowledge(pusher, random),
        5 => forge(pusher, tokens, random, tally),
        6 => collect(pusher, random),
        7 => register(pusher, random),
        8 => owning::own(pusher, random, tally),
        9 => governing::speak(pusher, random, tally),
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

fn pull(pusher: &mut Pusher, tokens: &mut Tokens, random: &mut StdRng) -> Result<()> {
    let (workspace, cursor, tables) = (workspace(random), number(random), tables(random));
    let (limit, latest) = (limit(random), *[None, Some(true), Some(false)].choose(random).unwrap());
    let proof = match random.random_range(0..5) {
        0 => Some(value::text(random)),
        1..=2 => tokens.altered(random),
        _ => None,
    };
    let expected = if has_nul([workspace.as_deref(), proof.as_deref()]) || has_nul(names(&tables)) {
        Some("22021")
    } else if !is_workspace(workspace.as_deref())
        || cursor.is_none_or(|cursor| cursor < 0)
        || proof.as_deref().is_some_and(|proof| !is_proof(proof))
    {
        Some("22023")
    } else {
        None
    };
    let sql = "select sync_pull($1, $2, $3, $4, $5, $6)::text";
    let arguments: [&(dyn ToSql + Sync); 6] =
        [&workspace, &cursor, &limit, &tables, &latest, &proof];
    let Some(reply) = ask(pusher, sql, &arguments, expected)? else { return Ok(()) };
    let (Some(workspace), Some(cursor)) = (workspace, cursor) else { return Ok(()) };
    let page: Page = serde_json::from_str(&reply)?;

    let model = pusher.models.get(&workspace);
    let head = model.map_or(0, |model| model.head());
    let is_ours = proof.as_ref().is_none_or(|proof| {
        tokens.proofs.iter().any(|(ours, of)| ours == proof && *of == workspace)
    });
    ensure!(
        page.requires_snapshot == (!is_ours || cursor > head),
        "cursor {cursor} of {head}, proof {proof:?}: {reply}"
    );
    if page.requires_snapshot {
        ensure!(page.changes.is_empty() && page.proof == proof, "{reply}");
        return Ok(());
    }
    let limit = limit.unwrap_or(100).clamp(1, 1000) as usize;
    let asked = Asked { cursor, limit, tables: filter(&tables), is_latest: latest == Some(true) };
    asked.check(&page.changes, model).with_context(|| reply.clone())?;
    if let Some(proof) = page.proof {
        keep(&mut tokens.proofs, (proof, workspace), random);
    }
    Ok(())
}

/// A pull that was served.
struct Asked<'a> {
    cursor: i64,
    limit: usize,
    tables: Option<Vec<&'a str>>,
    is_latest: bool,
}

impl Asked<'_> {
    fn check(&self, changes: &[Change], model: Option<&Model>) -> Result<()> {
        let wanted = |table: &str| self.tables.as_ref().is_none_or(|names| names.contains(&table));
        let log = model.map(|model| &model.log[..]).unwrap_or_default();
        let rest = log.iter().zip(1i64..).skip(self.cursor as usize);
        let mut due = rest.filter(|((op, _), _)| wanted(&op.table));
        ensure!(changes.len() <= self.limit, "{} changes", changes.len());
        for change in changes {
            // `latest` may leave entries out.
            let entry = due.find(|(_, due)| !self.is_latest || *due == change.server_version);
            let ((op, _), version) = entry.context("a change that is not there")?;
            let payload = change.payload.map(RawValue::get);
            ensure!(
                version == change.server_version && payload == op.payload.as_deref(),
                "version {version} is due"
            );
        }
        ensure!(
            self.is_latest || changes.len() == self.limit || due.next().is_none(),
            "changes are missing"
        );
        Ok(())
    }
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
        || version.is_none_or(|version| !(0..=head).contains(&version))
    {
        Some("22023")
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
                ["22023", "55000"].contains(&&*code) || code == "22021" && has_nul(names(&tables));
            ensure!(is_due, "{error}: {sql} with {token}");
        }
    }
    Ok(())
}

/// Nothing is old enough to go: GC must answer, and purge nothing.
fn collect(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let workspace = workspace(random);
    // Intervals may be infinite from Postgres 17 on.
    let infinite = pusher.server_version >= 170_000;
    let (retention, is_long) = *[
        (None, true),
        (Some("1 hour"), true),
        (Some("59 minutes 59.999999 seconds"), false),
        (Some("0"), false),
        (Some("-1 day"), false),
        (Some("1 month -30 days"), false),
        (Some("-1 month 31 days"), true),
        (Some("178000000 years"), true),
        (Some("-178000000 years"), false),
        (Some("2147483647 days 2562047788 hours"), true),
        (infinite.then_some("infinity"), true),
        (infinite.then_some("-infinity"), !infinite),
    ]
    .choose(random)
    .unwrap_or(&(None, true));
    let batch_size = [None, Some(0), Some(-1), Some(i32::MIN), Some(i32::MAX), Some(1), Some(100)]
        .choose(random)
        .copied()
        .flatten();
    let expected = if has_nul([workspace.as_deref()]) {
        Some("22021")
    } else if workspace.is_some() && !is_workspace(workspace.as_deref())
        || !is_long
        || batch_size.is_none_or(|size| size < 1)
    {
        Some("22023")
    } else {
        None
    };
    let sql = "select sync_gc($1, $2::text::interval, $3)::text";
    let reply = ask(pusher, sql, &[&workspace, &retention, &batch_size], expected)?;
    if let Some(reply) = reply {
        let purged = r#""scanned":0,"changesDeleted":0,"tombstonesDeleted":0,"devicesDeleted":0"#;
        ensure!(reply.contains(purged), "{reply}");
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
