//! A device with a copy of the map.

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sync_ext_harness::device::{Device, Pulled};
use sync_ext_harness::state::{live, of_server};

use super::{DATABASE, Ended, Servers, choose, ended};
use crate::common::tally::Tally;

pub struct Follower {
    device: Device,
    random: StdRng,
    /// Where its copy of the map has the workspace.
    known: usize,
    next_op: u64,
    /// The versions that were told, by op.
    acknowledged: Vec<(String, i64)>,
}

impl Follower {
    /// Up to date.
    pub fn new(servers: &Servers, workspace: &str, number: usize, seed: u64) -> Result<Follower> {
        let mut random = StdRng::seed_from_u64(seed << 8 | number as u64);
        let mut device = Device::new(&format!("d{number}"), workspace);
        let known = servers.home(workspace);
        let mut client = servers.clusters[known].connect(DATABASE)?;
        device.pull(&mut client, 100, false)?;
        let next_op = random.random::<u64>() >> 20 << 16;
        Ok(Follower { device, random, known, next_op, acknowledged: Vec::new() })
    }

    pub fn workspace(&self) -> &str {
        &self.device.workspace
    }

    pub fn run(&mut self, servers: &Servers) -> Result<Tally> {
        let mut tally = Tally::default();
        while !servers.is_over() {
            let routed = match self.random.random_bool(0.3) {
                true => servers.connect_to_router()?,
                false => None,
            };
            let server = choose(&mut self.random, self.known);
            let client = match routed {
                Some(client) => {
                    tally.add("sessions with the router", 1);
                    Some(client)
                }
                None => servers.connect(server)?,
            };
            let Some(mut client) = client else { continue };
            // A session for some calls: others come with a new connection.
            for _ in 0..self.random.random_range(1..8) {
                if let Err(error) = self.step(&mut client, &mut tally) {
                    match ended(error)? {
                        Ended::Elsewhere => tally.add("calls told elsewhere", 1),
                        Ended::Cut => tally.add("calls cut off", 1),
                    }
                    // Sometimes it goes on with the old map.
                    if self.random.random_bool(0.7) {
                        self.known = servers.home(&self.device.workspace);
                    }
                    break;
                }
            }
        }
        Ok(tally)
    }

    fn step(&mut self, client: &mut Client, tally: &mut Tally) -> Result<()> {
        match self.random.random_range(0..10) {
            0..5 => {
                self.edit();
                self.push(client, tally)
            }
            5..9 => self.pull(client, tally),
            _ => self.device.acknowledge(client),
        }
    }

    fn edit(&mut self) {
        for _ in 0..self.random.random_range(0..12) {
            self.next_op += 1;
            let pk = match self.random.random_range(0..10) {
                0 => format!("grave{}", self.random.random_range(0..20)),
                _ => format!("r{}", self.random.random_range(0..60)),
            };
            match self.random.random_range(0..4) {
                0 => self.device.delete(self.next_op, &pk),
                _ => self.device.put(self.next_op, &pk),
            }
        }
    }

    fn push(&mut self, client: &mut Client, tally: &mut Tally) -> Result<()> {
        let unanswered = self.device.outbox.iter().filter(|op| op.told.is_none() && !op.waits);
        let (sent, ops): (Vec<String>, Vec<&str>) =
            unanswered.take(40).map(|op| (op.revision.op_id.clone(), op.json.as_str())).unzip();
        let sql = "select sync_push($1, $2::text::json)::text";
        let ops = format!("[{}]", ops.join(","));
        let row = client.query_one(sql, &[&self.device.workspace, &ops])?;
        if self.random.random_bool(0.1) {
            tally.add("replies lost", 1);
            return Ok(());
        }
        let reply: Value = serde_json::from_str(row.get(0))?;
        for (op_id, result) in sent.iter().zip(reply["results"].as_array().context("results")?) {
            ensure!(result["success"] == true, "refused: {result}");
            let version = result["serverVersion"].as_i64().context("a version")?;
            self.acknowledged.push((op_id.clone(), version));
        }
        tally.add("ops acknowledged", sent.len() as u64);
        self.device.push_answered(&sent, row.get(0))?;
        Ok(())
    }

    fn pull(&mut self, client: &mut Client, tally: &mut Tally) -> Result<()> {
        if self.random.random_bool(0.1) {
            let sql = "select sync_pull($1, $2, proof => $3)";
            let Device { workspace, cursor, proof, .. } = &self.device;
            client.query_one(sql, &[workspace, cursor, proof])?;
            tally.add("replies lost", 1);
            return Ok(());
        }
        let limit = self.random.random_range(1..50);
        tally.add("pulls", 1);
        match self.device.pull_page(client, limit, false)? {
            Pulled::Page { .. } => Ok(()),
            Pulled::SnapshotRequired { reason } => {
                let sql = "select coalesce(json_agg(w)::text, '') from sync_ext.workspace as w";
                let there: String = client.query_one(sql, &[])?.get(0);
                let (id, cursor) = (&self.device.workspace, self.device.cursor);
                bail!("{id} at {cursor} is sent to a snapshot: {reason}; there: {there}")
            }
        }
    }

    /// Brings the device up to date. Returns the number of acknowledged ops, which are all at
    /// their versions.
    pub fn check(&mut self, client: &mut Client) -> Result<u64> {
        let (ids, versions): (Vec<String>, Vec<i64>) = self.acknowledged.iter().cloned().unzip();
        let sql = "select count(*) from unnest($1::text[], $2::int8[]) as a (op_id, version)
                     join sync_ext.workspace w on w.workspace_id = $3
                     join sync_ext.change_log l on l.workspace_key = w.workspace_key
                      and l.op_id = a.op_id::uuid and l.server_version = a.version";
        let workspace = &self.device.workspace;
        let found: i64 = client.query_one(sql, &[&ids, &versions, workspace])?.get(0);
        ensure!(found as usize == ids.len(), "{found} of {} acknowledged ops are there", ids.len());
        let mut tally = Tally::default();
        while !self.device.outbox.is_empty() {
            while self.device.outbox.iter().any(|op| op.told.is_none()) {
                self.push(client, &mut tally)?;
            }
            self.device.pull(client, 500, false)?;
        }
        self.device.pull(client, 500, false)?;
        // A device that came late does not know of graves.
        let on_server = live(of_server(client, &self.device.workspace)?);
        ensure!(live(self.device.state()) == on_server, "it diverged");
        Ok(found as u64)
    }
}
