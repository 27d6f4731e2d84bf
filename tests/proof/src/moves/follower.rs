//! A device with a copy of the map.

use anyhow::{Context, Result, bail, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sync_ext_harness::device::{Device, Pulled};
use sync_ext_harness::state::{live, of_server};

use super::session::Session;
use super::{DATABASE, Ended, Gateway, Servers, choose, ended};
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

    pub fn run(&mut self, servers: &Servers, gateway: Gateway<'_>) -> Result<Tally> {
        let mut tally = Tally::default();
        while !servers.is_over() {
            let Some(mut session) = self.connect(servers, gateway, &mut tally)? else { continue };
            // A session for some calls: others come with a new connection.
            for _ in 0..self.random.random_range(1..8) {
                if let Err(error) = self.step(&mut *session, &mut tally) {
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

    /// Directly, or by what routes.
    fn connect(
        &mut self,
        servers: &Servers,
        gateway: Gateway<'_>,
        tally: &mut Tally,
    ) -> Result<Option<Box<dyn Session>>> {
        if let Some(gateway) = gateway.filter(|_| self.random.random_bool(0.3)) {
            tally.add("sessions with the gateway", 1);
            return Ok(Some(gateway()));
        }
        if self.random.random_bool(0.3)
            && let Some(router) = servers.connect_to_router()?
        {
            tally.add("sessions with the router", 1);
            return Ok(Some(Box::new(router)));
        }
        let server = servers.connect(choose(&mut self.random, self.known))?;
        Ok(server.map(|server| Box::new(server) as Box<dyn Session>))
    }

    fn step(&mut self, session: &mut dyn Session, tally: &mut Tally) -> Result<()> {
        match self.random.random_range(0..10) {
            0..5 => {
                self.edit();
                self.push(session, tally)
            }
            5..9 => self.pull(session, tally),
            _ => session.acknowledge(&self.device),
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

    fn push(&mut self, session: &mut dyn Session, tally: &mut Tally) -> Result<()> {
        let unanswered = self.device.outbox.iter().filter(|op| op.told.is_none() && !op.waits);
        let (sent, ops): (Vec<String>, Vec<&str>) =
            unanswered.take(40).map(|op| (op.revision.op_id.clone(), op.json.as_str())).unzip();
        let reply = session.push(&self.device, &format!("[{}]", ops.join(",")))?;
        if self.random.random_bool(0.1) {
            tally.add("replies lost", 1);
            return Ok(());
        }
        let told: Value = serde_json::from_str(&reply)?;
        for (op_id, result) in sent.iter().zip(told["results"].as_array().context("results")?) {
            ensure!(result["success"] == true, "refused: {result}");
            let version = result["serverVersion"].as_i64().context("a version")?;
            self.acknowledged.push((op_id.clone(), version));
        }
        tally.add("ops acknowledged", sent.len() as u64);
        self.device.push_answered(&sent, &reply)?;
        Ok(())
    }

    fn pull(&mut self, session: &mut dyn Session, tally: &mut Tally) -> Result<()> {
        let reply = session.pull(&self.device, self.random.random_range(1..50))?;
        if self.random.random_bool(0.1) {
            tally.add("replies lost", 1);
            return Ok(());
        }
        tally.add("pulls", 1);
        match self.device.pull_answered(&reply)? {
            Pulled::Page { .. } => Ok(()),
            Pulled::SnapshotRequired { reason } => {
                let there = session.workspaces()?;
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
