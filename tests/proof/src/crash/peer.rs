//! Devices beside the pushers, and GC.

use anyhow::{Result, ensure};
use postgres::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sync_ext_harness::device::{Device, call};
use sync_ext_harness::state::{Line, of_server};

/// A device in the workspace `synced`.
pub struct Peer {
    device: Device,
    random: StdRng,
    pub ops_made: u64,
}

impl Peer {
    pub fn new(number: u64, seed: u64) -> Peer {
        let device = Device::new(&format!("device {number}"), "synced");
        Peer { device, random: StdRng::seed_from_u64(seed), ops_made: 0 }
    }

    fn edit(&mut self) {
        self.ops_made += 1;
        let (id, pk) = (self.random.random(), format!("r{}", self.random.random_range(0..20)));
        match self.random.random_bool(0.3) {
            true => self.device.delete(id, &pk),
            false => self.device.put(id, &pk),
        }
    }

    fn exchange(&mut self, client: &mut Client) -> Result<()> {
        self.device.push(client)?;
        let limit = self.random.random_range(1..20);
        self.device.pull(client, limit, self.random.random())?;
        self.device.acknowledge(client)
    }

    /// Lives until the server dies.
    pub fn run(&mut self, client: &mut Client) {
        loop {
            for _ in 0..self.random.random_range(1..12) {
                self.edit();
            }
            if self.exchange(client).is_err() {
                return;
            }
        }
    }
}

/// Ages and collects the devices' workspace until the server dies. Proofs that
/// devices hold of entries of the last day are not broken: those stay as young
/// as they are.
pub fn collect(client: &mut Client) {
    let age = "update sync_ext.change_log set created_at = created_at - interval '40 days'
                where created_at > now() - interval '1 day' and server_version < (
                  select min(last_seen_version) from sync_ext.device_cursor)
                  and workspace_key = (select workspace_key from sync_ext.workspace where workspace_id = 'synced')";
    while client.execute(age, &[]).is_ok() {
        if client.execute("select sync_gc('synced', batch_size => 50)", &[]).is_err() {
            return;
        }
    }
}

/// Until no outbox holds anything, and all have seen the same head.
pub fn check_peers(client: &mut Client, peers: &mut [Peer]) -> Result<()> {
    for _ in 0..10 {
        for peer in &mut *peers {
            peer.exchange(client)?;
        }
    }
    let head = call(
        client,
        "select head::text from sync_ext.workspace where workspace_id = 'synced'",
        &[],
    )?;
    let server = of_server(client, "synced")?;
    for Peer { device, .. } in peers {
        ensure!(device.outbox.is_empty(), "{} still holds {:?}", device.id, device.outbox);
        ensure!(device.cursor.to_string() == head, "{} is at {}", device.id, device.cursor);
        let state = device.state();
        let wrong = state.iter().find(|line| !server.contains(line));
        ensure!(wrong.is_none(), "{} has {wrong:?}, which the server has not", device.id);
        let live = |line: &&Line| line.5 == "put";
        let missing = server.iter().filter(live).find(|line| !state.contains(line));
        ensure!(missing.is_none(), "{} has not {missing:?}", device.id);
    }
    Ok(())
}
