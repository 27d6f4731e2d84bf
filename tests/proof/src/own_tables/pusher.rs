//! Devices that push to the rows which SQL writes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Round, list, task, workspace};
use crate::common::tally::Tally;

pub struct Pusher {
    random: StdRng,
    clock: u64,
    /// The puts that were applied, by record: bases of patches.
    puts: BTreeMap<String, Value>,
    /// The versions that were told, by op.
    acknowledged: Vec<(String, i64)>,
}

/// The codes of refused ops that are counted.
const REFUSED: [(&str, &str); 6] = [
    ("CONSTRAINT", "ops refused: CONSTRAINT"),
    ("REJECTED", "ops refused: REJECTED"),
    ("VALIDATION_ERROR", "ops refused: VALIDATION_ERROR"),
    ("UNAUTHORIZED", "ops refused: UNAUTHORIZED"),
    ("BASE_MISSING", "ops refused: BASE_MISSING"),
    ("RECORD_CONFLICT", "ops refused: RECORD_CONFLICT"),
];

impl Pusher {
    pub fn new(seed: u64) -> Pusher {
        let random = StdRng::seed_from_u64(seed);
        Pusher { random, clock: 1, puts: BTreeMap::new(), acknowledged: Vec::new() }
    }

    pub fn run(&mut self, round: &Round<'_>) -> Result<Tally> {
        let mut tally = Tally::default();
        while !round.is_over() {
            let Some(mut client) = round.connect()? else { break };
            while !round.is_over() {
                let workspace = workspace(&mut self.random);
                let ops = self.batch(&workspace);
                let sql = "select sync_push($1, $2::text::json)::text";
                match client.query_one(sql, &[&workspace, &Value::from(ops.clone()).to_string()]) {
                    Ok(row) => self.answered(&ops, row.get(0), &mut tally)?,
                    Err(error) if round.is_killed(&error) => break,
                    Err(error) => match error.code().map(|state| state.code()) {
                        Some("55P03") => tally.add("pushes that gave up", 1),
                        _ => bail!("a push failed: {error:?}"),
                    },
                }
            }
        }
        Ok(tally)
    }

    fn batch(&mut self, workspace: &str) -> Vec<Value> {
        let count = *[1, 1, 2, 5, 12, 40].choose(&mut self.random).unwrap_or(&1);
        (0..count).map(|_| self.op(workspace)).collect()
    }

    fn op(&mut self, workspace: &str) -> Value {
        let random = &mut self.random;
        self.clock += 1;
        let clock = self.clock + random.random_range(0..3);
        let id = Uuid::from_u128(random.random()).to_string();
        let stamp = json!({"deviceId": "d", "opId": id, "hlc": "h", "clock": clock});
        let op = |table: &str, operation: &str, pk: &str, payload: Value| json!({"tableName": table, "operation": operation, "pk": pk, "payload": payload, "stamp": stamp});
        let (task, other, list) =
            (task(workspace, random), task(workspace, random), list(workspace, random));
        match random.random_range(0..20) {
            0 => op("lists", "delete", &list, Value::Null),
            1..=3 => op("lists", "put", &list, json!({"title": format!("p{clock}")})),
            4 | 5 => op("tasks", "delete", &task, Value::Null),
            6 => op("tasks", "put", &task, json!({"title": "bad"})),
            7 => op("tasks", "put", &task, json!({"title": "rejected"})),
            8 => op("tasks", "put", &task, json!({"title": "x", "place": "none"})),
            9 => op("tasks", "put", &task, json!({"title": "orphan", "list": "nowhere"})),
            10 => op("tasks", "put", &task, json!({"title": "x", "after": other})),
            11 => op("tasks", "put", &task, json!({"title": "x", "place": clock % 5})),
            12..=14 if self.puts.contains_key(&task) => {
                let base = &self.puts[&task]["stamp"];
                let base = json!({"clock": base["clock"], "hlc": "h", "opId": base["opId"]});
                let mut patch =
                    op("tasks", "patch", &task, json!({"title": format!(" patched {clock} ")}));
                patch["base"] = base;
                patch
            }
            15 | 16 => {
                op("tasks", "put", &task, json!({"title": format!(" {clock} "), "list": list}))
            }
            _ => op("tasks", "put", &task, json!({"title": format!("{clock}")})),
        }
    }

    fn answered(&mut self, ops: &[Value], reply: &str, tally: &mut Tally) -> Result<()> {
        let reply: Value = serde_json::from_str(reply)?;
        let results = reply["results"].as_array().context("results")?;
        ensure!(results.len() == ops.len(), "a result per op");
        tally.add("pushes", 1);
        for (op, result) in ops.iter().zip(results) {
            let winner = &result["winner"]["revision"]["clock"];
            self.clock = self.clock.max(winner.as_u64().unwrap_or(0));
            if result["success"] == true {
                tally.add(if result["applied"] == true { "ops applied" } else { "ops lost" }, 1);
                let id = op["stamp"]["opId"].as_str().context("opId")?.to_owned();
                self.acknowledged.push((id, result["serverVersion"].as_i64().context("version")?));
                if op["operation"] == "put" && result["applied"] == true {
                    self.puts.insert(op["pk"].as_str().context("pk")?.to_owned(), op.clone());
                }
                continue;
            }
            let code = REFUSED.iter().find(|(code, _)| result["errorCode"] == *code);
            let (_, counted) = code.with_context(|| format!("{op} is refused: {result}"))?;
            tally.add(counted, 1);
        }
        Ok(())
    }

    /// What was acknowledged is in the log.
    pub fn check(&self, client: &mut Client) -> Result<()> {
        let (ids, versions): (Vec<String>, Vec<i64>) = self.acknowledged.iter().cloned().unzip();
        let sql = "select count(*) from unnest($1::text[], $2::int8[]) as a (op_id, version)
                     join sync_ext.change_log l on l.op_id = a.op_id::uuid and l.server_version = a.version";
        let found: i64 = client.query_one(sql, &[&ids, &versions])?.get(0);
        ensure!(
            found as usize == ids.len(),
            "{} of {} acknowledged ops are gone",
            ids.len() as i64 - found,
            ids.len()
        );
        Ok(())
    }
}
