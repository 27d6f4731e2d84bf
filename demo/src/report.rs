//! What came out of a replay.

use std::time::Duration;

use anyhow::{Result, ensure};
use sync_ext_demo::oplog::STATE_SHA256;
use sync_ext_harness::device::Answered;

#[derive(Default)]
pub struct Report {
    pub pushes: usize,
    pub answered: Answered,
    pub time: Duration,
    pub devices: usize,
    pub refused_calls: usize,
    pub head: i64,
    pub live: i64,
    pub deleted: i64,
    pub log_before: i64,
    pub log_after: i64,
    pub by_server: String,
    pub by_pull: String,
    pub by_snapshot: String,
}

impl Report {
    pub fn count(&mut self, answered: Answered) {
        self.pushes += 1;
        self.answered.applied += answered.applied;
        self.answered.lost += answered.lost;
        self.answered.replayed += answered.replayed;
        self.answered.refused += answered.refused;
    }

    fn ops(&self) -> usize {
        self.answered.applied + self.answered.lost
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let rate = self.ops() as f64 / self.time.as_secs_f64();
        let digits = |state: &str| state.chars().take(12).collect();
        vec![
            ("devices", self.devices.to_string()),
            ("pushes", self.pushes.to_string()),
            ("ops", self.ops().to_string()),
            ("  replays", self.answered.replayed.to_string()),
            ("  conflicts lost", self.answered.lost.to_string()),
            ("  refused", self.answered.refused.to_string()),
            ("calls of others refused", self.refused_calls.to_string()),
            ("head", self.head.to_string()),
            ("records live", self.live.to_string()),
            ("records deleted", self.deleted.to_string()),
            ("log rows before GC", self.log_before.to_string()),
            ("log rows after GC", self.log_after.to_string()),
            ("ops/s pushed", format!("{rate:.0}")),
            ("state of the server", digits(&self.by_server)),
            ("  of a device by pull", digits(&self.by_pull)),
            ("  of one by snapshot", digits(&self.by_snapshot)),
        ]
    }

    pub fn check(&self) -> Result<()> {
        for state in [&self.by_server, &self.by_pull, &self.by_snapshot] {
            ensure!(state == STATE_SHA256, "a state is not the known one: {state}");
        }
        let ops = self.ops() as i64;
        ensure!(self.head == ops, "the head is {} after {ops} ops", self.head);
        Ok(())
    }
}

/// One table, a column for each replay.
pub fn print(columns: [(&str, &Report); 2]) {
    let [(left, a), (right, b)] = columns;
    println!("{:24} {left:>12} {right:>12}", "");
    for ((name, a), (_, b)) in a.rows().into_iter().zip(b.rows()) {
        println!("{name:24} {a:>12} {b:>12}");
    }
    println!("state known, as sha256   {STATE_SHA256}");
}
