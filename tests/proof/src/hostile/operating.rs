//! Hostile arguments to what operators call.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use postgres::types::ToSql;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use sync_ext_model::Cutoffs;

use super::allowed;
use super::arguments::{is_workspace, workspace};
use super::calls::{ask_like, compare, refused, unless_nul};
use super::push::Pusher;
use super::value;
use crate::common::measures;
use crate::common::rows::check_reply;
use crate::common::tally::Tally;

/// Nothing is old.
const CUTOFFS: Cutoffs = Cutoffs { entries: i64::MIN, heartbeats: i64::MIN, forgotten: i64::MIN };

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
    let id = workspace.as_deref();
    let model = &mut pusher.model;
    let expected = unless_nul([id], || match is_long {
        true => {
            let batch = batch_size.unwrap_or_default().into();
            let collected = model.collect(None, id, CUTOFFS, batch, &BTreeSet::new())?;
            Ok(collected.reply())
        }
        false => Err(refused("22023")),
    });
    let sql = "select sync_gc($1, $2::text::interval, $3)::text";
    compare(pusher, sql, &[&workspace, &retention, &batch_size], expected)
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
    let entries: i64 = pusher.model.workspaces.values().map(|state| state.head).sum();
    if entries > LONG && random.random_bool(0.98) {
        return Ok(());
    }
    if random.random() { status(pusher, random) } else { explain(pusher, random, tally) }
}

fn status(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let workspace = workspace(random);
    let id = workspace.as_deref();
    let expected = unless_nul([id], || pusher.model.status(None, id, CUTOFFS));
    let reply = ask_like(pusher, "select sync_status($1)::text", &[&workspace], &expected)?;
    let (Some(mut reply), Ok(expected)) = (reply, expected) else { return Ok(()) };
    measures::take_from_status(&mut reply)?;
    check_reply("a question for the status", &reply, &expected)
}

/// Of a record that there is, or of what is none.
fn explain(pusher: &mut Pusher, random: &mut StdRng, tally: &mut Tally) -> Result<()> {
    let workspace = workspace(random);
    let id = workspace.as_deref();
    let log = id.and_then(|id| pusher.model.workspaces.get(id)).map(|state| &state.log);
    let version = random.random_range(1..=log.map_or(1, |log| log.len() as i64).max(1));
    let known = log.and_then(|log| log.get(&version)).filter(|_| random.random());
    let text = |random: &mut StdRng| random.random_bool(0.9).then(|| value::text(random));
    let (table, pk) = match known {
        Some(entry) => (Some(entry.op.table.clone()), Some(entry.op.pk.clone())),
        None => (text(random), text(random)),
    };
    let texts = [id, table.as_deref(), pk.as_deref()];
    let expected = unless_nul(texts, || {
        let key = (table.clone().unwrap_or_default(), pk.clone().unwrap_or_default());
        pusher.model.explain(None, id.unwrap_or_default(), &key, CUTOFFS)
    });
    let sql = "select sync_explain($1, $2, $3)::text";
    let reply = ask_like(pusher, sql, &[&workspace, &table, &pk], &expected)?;
    let (Some(mut reply), Ok(mut expected)) = (reply, expected) else { return Ok(()) };
    tally.add("ops explained", measures::take_from_explained(&mut reply)?);
    // NULL names no record, and is echoed.
    expected["tableName"] = table.into();
    expected["pk"] = pk.into();
    check_reply("a question for a record", &reply, &expected)
}
