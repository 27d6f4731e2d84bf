//! Devices: each follows the rules for clients, and is careless about the app's.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::{Value, json};
use sync_ext_harness::batch::op_id;
use sync_ext_harness::device::{Device, Pending, Revision};

use super::report::{Outcome, Report};
use super::{WORKSPACES, comment, list, todo};

pub struct Phone {
    pub device: Device,
    random: StdRng,
    client: Client,
    next_id: u64,
}

/// As much of a result as is counted.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    success: bool,
    #[serde(default)]
    applied: bool,
    error_code: Option<String>,
    sql_state: Option<String>,
    constraint: Option<String>,
    error: Option<String>,
}

impl Phone {
    pub fn new(number: u64, seed: u64, client: Client) -> Phone {
        let workspace = WORKSPACES[number as usize % WORKSPACES.len()];
        Phone {
            device: Device::new(&format!("phone {number}"), workspace),
            random: StdRng::seed_from_u64(seed + number),
            client,
            next_id: (number + 1) << 32,
        }
    }

    pub fn work(&mut self, until: Instant) -> Result<Report> {
        let mut report = Report::default();
        while Instant::now() < until {
            for _ in 0..self.random.random_range(1..8) {
                self.edit()?;
            }
            self.push(&mut report)?;
            if self.random.random_bool(0.5) {
                self.device.pull(&mut self.client, 1000, true)?;
            }
        }
        Ok(report)
    }

    /// When others are done: what is left in the outbox.
    pub fn push_to_the_end(&mut self) -> Result<Report> {
        let mut report = Report::default();
        self.device.pull(&mut self.client, 1000, true)?;
        while self.device.outbox.iter().any(|op| op.told.is_none()) {
            self.push(&mut report)?;
            self.device.pull(&mut self.client, 1000, true)?;
        }
        Ok(report)
    }

    pub fn pull_to_the_end(&mut self) -> Result<()> {
        self.device.pull(&mut self.client, 1000, true)?;
        let (id, left) = (&self.device.id, self.device.outbox.len());
        ensure!(left == 0, "{id} has {left} ops that the server does not");
        Ok(())
    }

    fn push(&mut self, report: &mut Report) -> Result<()> {
        let unsent = self.device.outbox.iter().filter(|op| op.told.is_none() && !op.waits);
        let sent: Vec<Pending> = unsent.cloned().collect();
        let ops: Vec<&str> = sent.iter().map(|op| op.json.as_str()).collect();
        let ops = format!("[{}]", ops.join(","));
        let sql = "select sync_push($1, $2::text::json)::text";
        let reply: String = match self.client.query_one(sql, &[&self.device.workspace, &ops]) {
            Ok(row) => row.get(0),
            Err(error) if error.code().is_some_and(|state| state.code() == "55P03") => {
                report.pushes_given_up += 1;
                return Ok(());
            }
            Err(error) => bail!("a push failed: {error:?}"),
        };
        report.pushes += 1;
        let op_ids: Vec<String> = sent.iter().map(|op| op.revision.op_id.clone()).collect();
        self.device.push_answered(&op_ids, &reply)?;
        #[derive(Deserialize)]
        struct Reply {
            results: Vec<Item>,
        }
        let Reply { results } = serde_json::from_str(&reply)?;
        for (op, item) in sent.iter().zip(results) {
            report.add(&op.edit, item.outcome());
        }
        Ok(())
    }

    /// Puts an op into the outbox; some break a rule of the tables.
    fn edit(&mut self) -> Result<()> {
        let Phone { device, random, .. } = self;
        let workspace = &device.workspace;
        let (list, todo) = (list(workspace, random), todo(workspace, random));
        let comment = comment(workspace, random);
        let of_list = one_of(device, "lists", random).unwrap_or_else(|| list.clone());
        let of_todo = one_of(device, "todos", random).unwrap_or_else(|| todo.clone());
        let n = random.random_range(0..1_000_000);
        let title = format!("phone {n}");
        let to_do = |title: Value, priority: Value| json!({"list_id": of_list, "title": title, "priority": priority});
        let (table, pk, payload) = match random.random_range(0..32) {
            0..=3 => ("lists", list, json!({"title": title})),
            4 => ("lists", list, Value::Null),
            5..=14 => ("todos", todo, to_do(title.into(), (1 + n % 5).into())),
            15 => ("todos", todo, Value::Null),
            16..=24 => ("comments", comment, json!({"todo_id": of_todo, "body": title})),
            25 => ("comments", comment, Value::Null),
            26 => ("lists", list, json!({"title": "Inbox"})),
            27 => ("todos", todo, to_do(Value::Null, 1.into())),
            28 => ("todos", todo, to_do(title.into(), 9.into())),
            29 => ("todos", todo, to_do(title.into(), "high".into())),
            30 => ("todos", todo, json!({"list_id": "no list", "title": title})),
            _ => ("comments", comment, json!({"todo_id": of_todo, "body": title, "hidden": true})),
        };
        self.keep(table, &pk, payload)
    }

    /// A todo that the device has is changed by a patch.
    fn keep(&mut self, table: &str, pk: &str, payload: Value) -> Result<()> {
        let seen = self.device.seen(table, pk);
        let known = self.device.clocks.get(&(table.to_owned(), pk.to_owned())).copied();
        let pending = self.device.pending(table, pk).map(|op| op.revision.clock);
        let clock = 1 + pending.chain(known).max().unwrap_or(0);
        self.next_id += 1;
        let id = op_id(self.next_id);
        let stamp = json!({"deviceId": self.device.id, "opId": id, "hlc": "h", "clock": clock});
        let mut op = json!({"tableName": table, "pk": pk, "operation": "put", "stamp": stamp});
        if payload.is_null() {
            op["operation"] = "delete".into();
        } else if table == "todos" && seen.is_live() && self.random.random_bool(0.8) {
            op["operation"] = "patch".into();
            let base = seen.register.map(revision);
            op["base"] = base.into();
        }
        op["payload"] = payload;
        self.device.outbox.push(Pending::of(op.to_string())?);
        Ok(())
    }
}

fn revision(Revision { clock, hlc, op_id }: Revision) -> Value {
    json!({"clock": clock, "hlc": hlc, "opId": op_id})
}

/// A row that the device has.
fn one_of(device: &Device, table: &str, random: &mut StdRng) -> Option<String> {
    let live = device.synced.iter().filter(|((of, _), row)| of == table && !row.deleted);
    live.choose(random).map(|((_, pk), _)| pk.clone())
}

impl Item {
    fn outcome(self) -> Outcome {
        match (self.success, self.applied) {
            (true, true) => Outcome::Applied,
            (true, false) => Outcome::Lost,
            (false, _) => {
                let why = self.constraint.or(self.error).unwrap_or_default();
                let state = self.sql_state.unwrap_or_default();
                Outcome::Refused(self.error_code.unwrap_or_default(), state, why)
            }
        }
    }
}
