//! Hostile arguments to pulls, alone and in exchanges.

use anyhow::{Context, Result, ensure};
use postgres::types::ToSql;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde::Deserialize;
use serde_json::value::RawValue;
use sync_ext_cluster::replies::ExchangeReply;
use uuid::Uuid;

use super::arguments::{
    Tables, Tokens, filter, has_nul, is_proof, is_workspace, limit, names, number, tables,
    workspace,
};
use super::calls::ask;
use super::expect::{Whole, expect};
use super::generate::keep;
use super::model::Model;
use super::push::Pusher;
use super::value;
use crate::tally::Tally;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<'a> {
    #[serde(borrow, default)]
    pub changes: Vec<Change<'a>>,
    #[serde(borrow, default)]
    pub items: Vec<Change<'a>>,
    #[serde(default)]
    pub requires_snapshot: bool,
    pub next_page_token: Option<String>,
    pub proof: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change<'a> {
    pub server_version: i64,
    #[serde(borrow)]
    pub payload: Option<&'a RawValue>,
}

/// What is asked of a pull.
struct Asked {
    workspace: Option<String>,
    cursor: Option<i64>,
    limit: Option<i32>,
    tables: Tables,
    latest: Option<bool>,
    proof: Option<String>,
}

impl Asked {
    fn random(tokens: &Tokens, random: &mut StdRng) -> Asked {
        let (workspace, cursor, tables) = (workspace(random), number(random), tables(random));
        let latest = *[None, Some(true), Some(false)].choose(random).unwrap_or(&None);
        let proof = match random.random_range(0..5) {
            0 => Some(value::text(random)),
            1..=2 => tokens.altered(random),
            _ => None,
        };
        Asked { workspace, cursor, limit: limit(random), tables, latest, proof }
    }

    /// The SQLSTATE that is due, of these and of other arguments.
    fn due(&self, nul: bool, is_valid: bool) -> Option<&'static str> {
        let Asked { workspace, cursor, tables, proof, .. } = self;
        if nul || has_nul([workspace.as_deref(), proof.as_deref()]) || has_nul(names(tables)) {
            Some("22021")
        } else if !is_valid
            || !is_workspace(workspace.as_deref())
            || cursor.is_none_or(|cursor| cursor < 0)
            || proof.as_deref().is_some_and(|proof| !is_proof(proof))
        {
            Some("22023")
        } else {
            None
        }
    }

    /// Checks a reply; gives whether it goes on from the cursor.
    fn check(
        self,
        reply: &str,
        model: Option<&Model>,
        tokens: &mut Tokens,
        random: &mut StdRng,
    ) -> Result<bool> {
        let Asked { workspace, cursor, proof, .. } = &self;
        let (workspace, cursor) = workspace.clone().zip(*cursor).context("answered without")?;
        let page: Page = serde_json::from_str(reply)?;
        let head = model.map_or(0, |model| model.head());
        let is_ours = proof.as_ref().is_none_or(|proof| {
            tokens.proofs.iter().any(|(ours, of)| ours == proof && *of == workspace)
        });
        ensure!(
            page.requires_snapshot == (!is_ours || cursor > head),
            "cursor {cursor} of {head}, proof {proof:?}: {reply}"
        );
        if page.requires_snapshot {
            ensure!(page.changes.is_empty() && page.proof == *proof, "{reply}");
            return Ok(false);
        }
        self.check_changes(cursor, &page.changes, model).with_context(|| reply.to_owned())?;
        if let Some(proof) = page.proof {
            keep(&mut tokens.proofs, (proof, workspace), random);
        }
        Ok(true)
    }

    fn check_changes(&self, cursor: i64, changes: &[Change], model: Option<&Model>) -> Result<()> {
        let (tables, is_latest) = (filter(&self.tables), self.latest == Some(true));
        let limit = self.limit.unwrap_or(100).clamp(1, 1000) as usize;
        let wanted = |table: &str| tables.as_ref().is_none_or(|names| names.contains(&table));
        let log = model.map(|model| &model.log[..]).unwrap_or_default();
        let rest = log.iter().zip(1i64..).skip(cursor as usize);
        let mut due = rest.filter(|((op, _), _)| wanted(&op.table));
        ensure!(changes.len() <= limit, "{} changes", changes.len());
        for change in changes {
            // `latest` may leave entries out.
            let entry = due.find(|(_, due)| !is_latest || *due == change.server_version);
            let ((op, _), version) = entry.context("a change that is not there")?;
            let payload = change.payload.map(RawValue::get);
            ensure!(
                version == change.server_version && payload == op.payload.as_deref(),
                "version {version} is due"
            );
        }
        ensure!(is_latest || changes.len() == limit || due.next().is_none(), "changes are missing");
        Ok(())
    }
}

pub fn pull(pusher: &mut Pusher, tokens: &mut Tokens, random: &mut StdRng) -> Result<()> {
    let asked = Asked::random(tokens, random);
    let Asked { workspace, cursor, limit, tables, latest, proof } = &asked;
    let sql = "select sync_pull($1, $2, $3, $4, $5, $6)::text";
    let arguments: [&(dyn ToSql + Sync); 6] = [workspace, cursor, limit, tables, latest, proof];
    let Some(reply) = ask(pusher, sql, &arguments, asked.due(false, true))? else {
        return Ok(());
    };
    let model = workspace.as_ref().and_then(|id| pusher.models.get(id));
    asked.check(&reply, model, tokens, random).map(drop)
}

/// A device comes once. Whatever is wrong, neither it nor the op is stored.
pub fn exchange(
    pusher: &mut Pusher,
    tokens: &mut Tokens,
    random: &mut StdRng,
    tally: &mut Tally,
) -> Result<()> {
    let asked = Asked::random(tokens, random);
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
    let whole = ops.as_deref().map(|ops| expect(ops.as_bytes()).0);
    let elements = match &whole {
        Some(Whole::Elements(elements)) => Some(elements),
        _ => None,
    };
    let nul = has_nul([device.as_deref()]);
    let is_valid = is_workspace(device.as_deref()) && elements.is_some();
    let expected = asked.due(nul, is_valid);

    let Asked { workspace, cursor, limit, tables, latest, proof } = &asked;
    let sql = "select sync_exchange($1, $2, $3, $4::text::json, $5, $6, $7, $8)::text";
    let arguments: [&(dyn ToSql + Sync); 8] =
        [workspace, &device, cursor, &ops, limit, tables, latest, proof];
    let reply = ask(pusher, sql, &arguments, expected)?;
    tally.add("exchanges", 1);
    let (mut acknowledged, cursor) = (None, *cursor);
    if let (Some(reply), Some(workspace), Some(elements)) = (reply, workspace.clone(), elements) {
        let reply: ExchangeReply = serde_json::from_str(&reply)?;
        pusher.take_reply(&workspace, elements, reply.push.get(), tally)?;
        let model = pusher.models.get(&workspace);
        let goes_on = asked.check(reply.pull.get(), model, tokens, random)?;
        acknowledged = cursor.filter(|cursor| goes_on && *cursor > 0);
        tally.add("exchanges that acknowledged", u64::from(acknowledged.is_some()));
    }
    if nul {
        return Ok(());
    }
    let sql = "select max(last_seen_version) from sync_ext.device_cursor where device_id = $1";
    let stored: Option<i64> = pusher.client.query_one(sql, &[&device])?.get(0);
    ensure!(stored == acknowledged, "{device:?} is at {stored:?}, not at {acknowledged:?}");
    Ok(())
}
