//! Hostile arguments to what operators call.

use anyhow::{Context, Result, ensure};
use postgres::types::ToSql;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::Deserialize;
use serde_json::Value;

use super::arguments::{has_nul, is_workspace, workspace};
use super::calls::ask;
use super::expect::Op;
use super::push::Pusher;
use super::{allowed, value};
use crate::tally::Tally;

/// Payloads are passed over: what they say no Value can hold.
#[derive(Deserialize)]
struct Explained {
    ops: Vec<OpExplained>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OpExplained {
    server_version: i64,
}

/// A retention, and whether it is long enough.
fn retention(pusher: &Pusher, random: &mut StdRng) -> (Option<&'static str>, bool) {
    // Intervals may be infinite from Postgres 17 on.
    let infinite = pusher.server_version >= 170_000;
    *[
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
    .unwrap_or(&(None, true))
}

fn batch_size(random: &mut StdRng) -> Option<i32> {
    [None, Some(0), Some(-1), Some(i32::MIN), Some(i32::MAX), Some(1), Some(100)]
        .choose(random)
        .copied()
        .flatten()
}

/// Nothing is old enough to go: GC must answer, and purge nothing.
pub fn collect(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let workspace = workspace(random);
    let (retention, is_long) = retention(pusher, random);
    let batch_size = batch_size(random);
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

/// Its batches are those of sync_gc, and the first one finds nothing to do.
pub fn collect_all(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let (retention, is_long) = retention(pusher, random);
    let batch_size = batch_size(random);
    let workspace = workspace(random).filter(|id| !id.contains('\0'));
    let spans = [None, Some("0"), Some("-1 day"), Some("1 minute"), Some("178000000 years")];
    let budget = spans.choose(random).copied().flatten();
    let pause = spans.choose(random).copied().flatten();
    let is_refused = !is_long
        || batch_size.is_none_or(|size| size < 1)
        || workspace.is_some() && !is_workspace(workspace.as_deref());
    let sql =
        "call sync_gc_all($1, $2::text::interval, $3, $4::text::interval, $5::text::interval)";
    let statement = pusher.statement(sql)?;
    let arguments: [&(dyn ToSql + Sync); 5] =
        [&workspace, &retention, &batch_size, &budget, &pause];
    let answer = pusher.client.execute(&statement, &arguments);
    let code = answer.err().map(|error| allowed::code(&error)).transpose()?;
    let expected = is_refused.then_some("22023");
    ensure!(
        code.as_deref() == expected,
        "{code:?} where {expected:?} is due: {sql} with {workspace:?}, {retention:?}, \
         {batch_size:?}, {budget:?}, {pause:?}"
    );
    Ok(())
}

/// From so many entries on it is asked for seldom what reads them all.
const LONG: i64 = 20_000;

/// The status, or what became of a record.
pub fn operate(pusher: &mut Pusher, random: &mut StdRng, tally: &mut Tally) -> Result<()> {
    let entries: i64 = pusher.models.values().map(|model| model.head()).sum();
    if entries > LONG && random.random_bool(0.98) {
        return Ok(());
    }
    if random.random() { status(pusher, random) } else { explain(pusher, random, tally) }
}

fn status(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let workspace = workspace(random);
    let expected = match has_nul([workspace.as_deref()]) {
        true => Some("22021"),
        false => (workspace.is_some() && !is_workspace(workspace.as_deref())).then_some("22023"),
    };
    let sql = "select sync_status($1)::text";
    let Some(reply) = ask(pusher, sql, &[&workspace], expected)? else { return Ok(()) };
    let reply: Value = serde_json::from_str(&reply)?;
    let told = reply["workspaces"].as_array().context("no workspaces")?;
    let told: Vec<_> =
        told.iter().map(|it| (it["workspaceId"].as_str(), it["logRows"].as_i64())).collect();
    let asked =
        pusher.models.iter().filter(|(id, _)| workspace.as_ref().is_none_or(|it| it == *id));
    let due: Vec<_> = asked.map(|(id, model)| (Some(&**id), Some(model.head()))).collect();
    ensure!(told == due, "{told:?} where {due:?} is due");
    Ok(())
}

/// Of a record that there is, or of what is none.
fn explain(pusher: &mut Pusher, random: &mut StdRng, tally: &mut Tally) -> Result<()> {
    let workspace = workspace(random);
    let log = workspace.as_ref().and_then(|id| pusher.models.get(id)).map(|model| &model.log[..]);
    let log = log.unwrap_or_default();
    let known = log.choose(random).filter(|_| random.random());
    let text = |random: &mut StdRng| random.random_bool(0.9).then(|| value::text(random));
    let (table, pk) = match known {
        Some((op, _)) => (Some(op.table.clone()), Some(op.pk.clone())),
        None => (text(random), text(random)),
    };
    let is_of_it = |op: &Op| Some(&op.table) == table.as_ref() && Some(&op.pk) == pk.as_ref();
    let due: Vec<i64> =
        (1..).zip(log).filter(|(_, (op, _))| is_of_it(op)).map(|(version, _)| version).collect();
    let expected = if has_nul([workspace.as_deref(), table.as_deref(), pk.as_deref()]) {
        Some("22021")
    } else {
        (!is_workspace(workspace.as_deref())).then_some("22023")
    };
    let sql = "select sync_explain($1, $2, $3)::text";
    let Some(reply) = ask(pusher, sql, &[&workspace, &table, &pk], expected)? else {
        return Ok(());
    };
    let explained: Explained = serde_json::from_str(&reply)?;
    let told: Vec<i64> = explained.ops.into_iter().map(|op| op.server_version).collect();
    ensure!(told == due, "{told:?} where {due:?} are due: {reply}");
    tally.add("ops explained", told.len() as u64);
    Ok(())
}
