//! Hostile arguments to pulls, alone and in exchanges.

use anyhow::Result;
use postgres::types::ToSql;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use sync_ext_harness::replies::ExchangeReply;
use sync_ext_model::{Pull, Pulled, Refusal, Scopes, reply};
use uuid::Uuid;

use super::arguments::{
    Kept, Tables, filter, forged_proof, is_scoped_proof, limit, names, number, scopes, tables,
    workspace,
};
use super::calls::{ask, ask_like, refused, unless_nul};
use super::generate::keep;
use super::push::{Pusher, check_push};
use super::value;
use crate::common::tally::Tally;

/// What is asked of a pull.
struct Asked {
    workspace: Option<String>,
    cursor: Option<i64>,
    limit: Option<i32>,
    tables: Tables,
    latest: Option<bool>,
    scopes: Tables,
    proof: Option<String>,
}

impl Asked {
    fn random(kept: &Kept, random: &mut StdRng) -> Asked {
        let (workspace, cursor, tables) = (workspace(random), number(random), tables(random));
        let latest = *[None, Some(true), Some(false)].choose(random).unwrap_or(&None);
        let proof = match random.random_range(0..5) {
            0 => Some(value::text(random)),
            1..=2 => kept.altered(random),
            3 => kept.proofs.choose(random).cloned(),
            _ => None,
        };
        let proof = proof.filter(|it| !is_scoped_proof(it) || kept.all.proof(it).is_some());
        let scopes = scopes(random);
        Asked { workspace, cursor, limit: limit(random), tables, latest, scopes, proof }
    }

    fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        [self.workspace.as_deref(), self.proof.as_deref()]
            .into_iter()
            .chain(names(&self.tables))
            .chain(names(&self.scopes))
    }

    /// For the model; an error if the proof is no token.
    fn pull(&self, kept: &Kept) -> std::result::Result<Pull, Refusal> {
        let proof = match &self.proof {
            None => None,
            Some(token) => match kept.all.proof(token).cloned().or_else(|| forged_proof(token)) {
                Some(proof) => Some((token.clone(), proof)),
                None => return Err(refused("22023")),
            },
        };
        Ok(Pull {
            user: None,
            workspace: self.workspace.clone().unwrap_or_default(),
            cursor: self.cursor.unwrap_or(-1),
            limit: self.limit.map(i64::from),
            filter: filter(&self.tables),
            latest: self.latest == Some(true),
            scopes: Scopes::of_argument(self.scopes.as_deref())?,
            proof,
        })
    }
}

fn check(
    pull: &Pull,
    reply: Value,
    expected: &Pulled,
    kept: &mut Kept,
    random: &mut StdRng,
) -> Result<()> {
    if let Some(proof) = kept.all.check_pull(pull, reply, expected, true)? {
        keep(&mut kept.proofs, proof, random);
    }
    Ok(())
}

pub fn pull(pusher: &mut Pusher, kept: &mut Kept, random: &mut StdRng) -> Result<()> {
    let asked = Asked::random(kept, random);
    let expected = unless_nul(asked.texts(), || {
        let pull = asked.pull(kept)?;
        pusher.model.pull(&pull).map(|pulled| (pull, pulled))
    });
    let Asked { workspace, cursor, limit, tables, latest, scopes, proof } = &asked;
    let sql = "select sync_pull($1, $2, $3, $4, $5, $6, $7)::text";
    let arguments: [&(dyn ToSql + Sync); 7] =
        [workspace, cursor, limit, tables, latest, proof, scopes];
    match (ask_like(pusher, sql, &arguments, &expected)?, expected) {
        (Some(reply), Ok((pull, pulled))) => check(&pull, reply, &pulled, kept, random),
        _ => Ok(()),
    }
}

/// A device comes once. Whatever is wrong, neither it nor the op is stored.
pub fn exchange(
    pusher: &mut Pusher,
    kept: &mut Kept,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    let asked = Asked::random(kept, random);
    let new_id = |random: &mut StdRng| Uuid::from_u128(random.random());
    let device = match random.random_range(0..8) {
        0 => None,
        1 => Some(String::new()),
        2..=3 => Some(format!("{}{}", new_id(random), value::text(random))),
        _ => Some(new_id(random).to_string()),
    };
    let ops = match random.random_range(0..8) {
        0 => None,
        1 => Some("{}".to_owned()),
        2 => Some("[7]".to_owned()),
        _ => Some(format!(
            r#"[{{"tableName":"notes","operation":"delete","pk":"x","stamp":{{"deviceId":"x",
                "opId":"{}","hlc":"x","clock":1}}}}]"#,
            new_id(random)
        )),
    };
    let texts = asked.texts().chain([device.as_deref()]);
    pusher.at += 1;
    let (at, model) = (pusher.at, &mut pusher.model);
    let expected = unless_nul(texts, || {
        let (pull, device) = (asked.pull(kept)?, device.as_deref().unwrap_or_default());
        let exchanged =
            model.exchange(device, ops.as_deref().unwrap_or("null"), &pull, (at, at))?;
        Ok((pull, exchanged))
    });
    let Asked { workspace, cursor, limit, tables, latest, scopes, proof } = &asked;
    let sql = "select sync_exchange($1, $2, $3, $4::text::json, $5, $6, $7, $8, $9)::text";
    let arguments: [&(dyn ToSql + Sync); 9] =
        [workspace, &device, cursor, &ops, limit, tables, latest, proof, scopes];
    let code = expected.as_ref().err().map(|refusal| refusal.code);
    let reply = ask(pusher, sql, &arguments, code)?;
    tally.add("exchanges", 1);
    let (Some(reply), Ok((pull, exchanged))) = (reply, expected) else { return Ok(()) };
    let halves: ExchangeReply = serde_json::from_str(&reply)?;
    check_push(halves.push.get(), &exchanged.push, tally)?;
    check(&pull, reply::read(halves.pull.get())?, &exchanged.pull, kept, random)?;
    tally.add("exchanges that acknowledged", u64::from(exchanged.acknowledges));
    Ok(())
}
