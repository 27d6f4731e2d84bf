//! Hostile arguments to the functions that take no batch. Each call must be
//! answered or refused exactly as the contract says; a token that was altered
//! must never be taken for a token.

use anyhow::{Context, Result, bail, ensure};
use postgres::types::ToSql;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use serde_json::value::RawValue;
use sync_ext_model::reply::{self, timeless};
use sync_ext_model::{Outcome, Refusal, Scopes, Snapshot};

use super::arguments::{
    Kept, PageOf, filter, forged_proof, has_nul, is_scoped_proof, limit, names, number, scopes,
    tables, workspace,
};
use super::generate::keep;
use super::push::Pusher;
use super::{allowed, governing, operating, owning, pulling, value};
use crate::common::rows::check_reply;
use crate::common::tally::Tally;

/// One call of one function.
pub fn call(
    pusher: &mut Pusher,
    kept: &mut Kept,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    tally.add("other calls", 1);
    match random.random_range(0..16) {
        0 => push_nothing(pusher, random),
        1..=2 => pulling::pull(pusher, kept, random),
        3 => snapshot(pusher, kept, random),
        4 => acknowledge(pusher, random),
        5 => forge(pusher, kept, random, tally),
        6 => operating::collect(pusher, random),
        7 => register(pusher, random),
        8 => owning::own(pusher, kept, random, tally),
        9 => governing::speak(pusher, random, tally),
        10..=11 => pulling::exchange(pusher, kept, random, tally),
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

/// A refusal of which only the SQLSTATE is compared.
pub fn refused(code: &'static str) -> Refusal {
    Refusal { code, message: "", detail: None }
}

/// What the model says, unless Postgres takes one of the texts for none.
pub fn unless_nul<'a, T>(
    texts: impl IntoIterator<Item = Option<&'a str>>,
    says: impl FnOnce() -> std::result::Result<T, Refusal>,
) -> std::result::Result<T, Refusal> {
    if has_nul(texts) { Err(refused("22021")) } else { says() }
}

/// Makes a call that must end like `expected`; gives its reply, unless it is
/// refused.
pub fn ask_like<T>(
    pusher: &mut Pusher,
    sql: &str,
    arguments: &[&(dyn ToSql + Sync)],
    expected: &std::result::Result<T, Refusal>,
) -> Result<Option<Value>> {
    let code = expected.as_ref().err().map(|refusal| refusal.code);
    let answer = ask(pusher, sql, arguments, code)?;
    let read = |text: String| match text.is_empty() {
        true => Ok(Value::Null),
        false => reply::read(&text).with_context(|| format!("{sql} with {arguments:?}")),
    };
    answer.map(read).transpose()
}

/// Makes a call whose reply is what is expected.
pub fn compare(
    pusher: &mut Pusher,
    sql: &str,
    arguments: &[&(dyn ToSql + Sync)],
    expected: Outcome,
) -> Result<()> {
    match (ask_like(pusher, sql, arguments, &expected)?, expected) {
        (Some(reply), Ok(expected)) => check_reply(sql, &reply, &expected),
        _ => Ok(()),
    }
}

/// NULL is no array, and not an empty one either.
fn push_nothing(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let workspace = workspace(random);
    let id = workspace.as_deref();
    let model = &mut pusher.model;
    let expected = unless_nul([id], || model.push(None, id.unwrap_or("w"), "null", 0));
    compare(pusher, "select sync_push($1, null)::text", &[&workspace], expected)
}

/// What is asked of a snapshot.
struct Asked {
    of: PageOf,
    text: Option<String>,
    limit: Option<i32>,
    proof: Option<String>,
}

impl Asked {
    fn random(kept: &Kept, random: &mut StdRng) -> Asked {
        let (scopes, have) = (scopes(random), scopes(random).filter(|_| random.random()));
        let (workspace, tables) = (workspace(random), tables(random));
        let mut of = PageOf { workspace, tables, scopes, have };
        let text = match random.random_range(0..5) {
            0 => Some(value::text(random)),
            1..=2 => kept.altered(random),
            _ => None,
        };
        // Half of the time with what it was made for.
        let made = kept.pages.iter().find(|(ours, _)| Some(ours) == text.as_ref());
        if let Some((_, with)) = made
            && random.random()
        {
            of = with.clone();
        }
        let proof = match random.random_range(0..6) {
            0 => Some(value::text(random)),
            1 => kept.altered(random),
            2 => kept.proofs.choose(random).cloned(),
            _ => None,
        };
        let proof = proof.filter(|it| !is_scoped_proof(it) || kept.all.proof(it).is_some());
        Asked { of, text, limit: limit(random), proof }
    }

    /// For the model; an error if something is no token, or too long.
    fn snapshot(&self, kept: &Kept) -> std::result::Result<Snapshot, Refusal> {
        let PageOf { workspace, tables, scopes, have } = &self.of;
        let proof = self.proof.as_ref().map(|token| {
            kept.all.proof(token).cloned().or_else(|| forged_proof(token)).ok_or(refused("22023"))
        });
        let token = self.text.as_ref();
        let token = token.map(|text| kept.all.page(text).cloned().ok_or(refused("22023")));
        Ok(Snapshot {
            user: None,
            workspace: workspace.clone().unwrap_or_default(),
            limit: self.limit.map(i64::from),
            filter: filter(tables),
            scopes: Scopes::of_argument(scopes.as_deref())?,
            have: Scopes::of_argument(have.as_deref())?,
            proof: proof.transpose()?,
            token: token.transpose()?,
        })
    }

    fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        let PageOf { workspace, tables, scopes, have } = &self.of;
        let lists = names(tables).chain(names(scopes)).chain(names(have));
        [workspace.as_deref(), self.text.as_deref(), self.proof.as_deref()].into_iter().chain(lists)
    }
}

fn snapshot(pusher: &mut Pusher, kept: &mut Kept, random: &mut StdRng) -> Result<()> {
    let asked = Asked::random(kept, random);
    let expected = unless_nul(asked.texts(), || pusher.model.snapshot(&asked.snapshot(kept)?));
    let Asked { of, text, limit, proof } = asked;
    let PageOf { workspace, tables, scopes, have } = &of;
    let sql = "select sync_snapshot($1, $2, $3, $4, $5, $6, $7)::text";
    let arguments: [&(dyn ToSql + Sync); 7] =
        [workspace, &text, &limit, tables, scopes, have, &proof];
    let reply = ask_like(pusher, sql, &arguments, &expected)?;
    let (Some(reply), Ok(mut listed)) = (reply, expected) else { return Ok(()) };
    listed.reply = timeless(listed.reply);
    let (proof, next) = kept.all.check_page(timeless(reply), &listed)?;
    if let Some(token) = next {
        keep(&mut kept.pages, (token, of), random);
    }
    if let Some(proof) = proof {
        keep(&mut kept.proofs, proof, random);
    }
    Ok(())
}

fn acknowledge(pusher: &mut Pusher, random: &mut StdRng) -> Result<()> {
    let (workspace, version) = (workspace(random), number(random));
    let device = random.random_bool(0.9).then(|| value::text(random));
    let (id, name) = (workspace.as_deref(), device.as_deref());
    let model = &mut pusher.model;
    let expected = unless_nul([id, name], || {
        let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
        model.acknowledge(None, id, name, version.unwrap_or(-1), 0)
    });
    let sql = "select sync_update_cursor($1, $2, $3)::text";
    compare(pusher, sql, &[&workspace, &device, &version], expected)
}

/// A page token that somebody made who knows how ours are made: the extension
/// keeps no secret. It may be served or refused, and do no harm.
fn forge(pusher: &mut Pusher, kept: &Kept, random: &mut StdRng, tally: &mut Tally) -> Result<()> {
    let (workspace, tables, limit) = ("w", tables(random), limit(random));
    let token = kept.forged(workspace, &tables, random);
    let sql = "select sync_snapshot($1, $2, $3, $4)::text";
    let statement = pusher.statement(sql)?;
    let arguments: [&(dyn ToSql + Sync); 4] = [&workspace, &token, &limit, &tables];
    match pusher.client.query_one(&statement, &arguments) {
        Ok(row) => {
            let reply: &str = row.get(0);
            reply::read(reply)?;
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
    let scope_field = match random.random_range(0..6) {
        0 => field.clone(),
        1 => Some(String::new()),
        2..=3 => None,
        _ => Some(value::text(random)),
    };
    let patches = random.random();
    let texts = [name.as_deref(), field.as_deref(), owner_field.as_deref(), scope_field.as_deref()];
    let [table, pk_field, _, _] = texts.map(Option::unwrap_or_default);
    let model = &mut pusher.model;
    let expected = unless_nul(texts, || {
        let fields = (pk_field, owner_field.as_deref(), scope_field.as_deref());
        model.register_scoped(None, table, fields, patches)
    });
    let sql = "select sync_register_table($1, $2, $3, $4, null, $5)::text";
    compare(pusher, sql, &[&name, &field, &owner_field, &patches, &scope_field], expected)?;
    let model = &mut pusher.model;
    let expected = unless_nul([name.as_deref()], || model.unregister(None, table));
    compare(pusher, "select sync_unregister_table($1)::text", &[&name], expected)
}
