//! What notifications cost: clients that commit an op each, with a listener beside them,
//! with and without notifications. A worker sends hints off the path of commits. A NOTIFY
//! at the commit takes a lock of the whole server from before the commit to its end, so
//! that commits queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use fallible_iterator::FallibleIterator;
use postgres::Client;
use serde_json::Value;

use crate::bench::Bench;
use crate::clients::{OURS, plural};
use crate::report::Row;
use crate::rounds::percentile;

/// Clients, which push to as many workspaces, and ops per client and round.
const CLIENTS: [(usize, usize); 3] = [(1, 400), (8, 400), (32, 150)];

/// A channel that no worker serves is notified at the commit.
const WAYS: [(&str, &str, &str); 3] = [
    ("hint", "worker", "set sync_ext.notify = hint"),
    ("hint at commit", "NOTIFY", "set sync_ext.notify = hint; set sync_ext.notify_channel = other"),
    ("changes", "NOTIFY", "set sync_ext.notify = changes"),
];

const INTERVAL_MS: f64 = 20.0;
const PATIENCE: Duration = Duration::from_secs(10);

impl Bench {
    /// Rates with notifications and without, alternating; and how soon a hint comes.
    pub fn notify(&mut self) -> Result<Vec<Row>> {
        self.admin.batch_execute("alter database bench set sync_ext.notify = hint")?;
        let mut listener = self.stand.connect()?;
        listener.batch_execute("listen sync_ext; listen other")?;
        // A commit that finds no worker calls for one.
        let mut pusher = self.stand.connect()?;
        pusher.query(OURS, &[&"first"])?;
        let begun = Instant::now();
        while payload(&mut listener)?["workspaceId"] != Value::Null {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "there is no worker");
        }
        let mut rows = Vec::new();
        for (name, way, set) in WAYS {
            for (clients, ops) in CLIENTS {
                let row = format!("notify {name}, {}", plural(clients, "client"));
                let off = ("notify off", "set sync_ext.notify = off", OURS);
                rows.push(self.rates(&row, (clients, clients, ops), [(way, set, OURS), off])?);
                // A listener that never reads would fill the queue.
                listener.batch_execute("unlisten *; listen sync_ext; listen other")?;
            }
        }
        rows.extend(self.until_hint("hint, idle", 0)?);
        rows.extend(self.until_hint("hint, 8 clients", 8)?);
        self.admin.batch_execute("alter database bench reset sync_ext.notify")?;
        Ok(rows)
    }

    /// From the end of a push to its hint, beside other clients.
    fn until_hint(&self, name: &str, others: usize) -> Result<[Row; 2]> {
        let is_over = AtomicBool::new(false);
        let times = thread::scope(|scope| -> Result<Vec<f64>> {
            let mut threads = Vec::new();
            for client in 0..others {
                let mut session = self.stand.connect()?;
                let is_over = &is_over;
                threads.push(scope.spawn(move || -> Result<()> {
                    let statement = session.prepare(OURS)?;
                    while !is_over.load(Ordering::Relaxed) {
                        session.query(&statement, &[&format!("w{}", 1 + client)])?;
                    }
                    Ok(())
                }));
            }
            let times = self.hint_times();
            is_over.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            times
        })?;
        let row = |share, what| {
            let time = percentile(times.clone(), share);
            Row::new(&format!("{name}, {what}"), "ms", time, "interval", INTERVAL_MS)
        };
        Ok([row(0.5, "median"), row(0.99, "p99")])
    }

    fn hint_times(&self) -> Result<Vec<f64>> {
        let (mut pusher, mut listener) = (self.stand.connect()?, self.stand.connect()?);
        listener.batch_execute("listen sync_ext")?;
        let mut times = Vec::new();
        for _ in 0..self.work / 20 {
            let reply: String = pusher.query_one(OURS, &[&"hinted"])?.get(0);
            let begun = Instant::now();
            let reply: Value = serde_json::from_str(&reply)?;
            loop {
                let hint = payload(&mut listener)?;
                if hint["workspaceId"] == "hinted"
                    && hint["serverVersion"] == reply["serverVersion"]
                {
                    break;
                }
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    }
}

fn payload(listener: &mut Client) -> Result<Value> {
    let next = listener.notifications().timeout_iter(PATIENCE).next()?.context("no hint came")?;
    Ok(serde_json::from_str(next.payload())?)
}
