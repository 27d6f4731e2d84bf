//! The memory that a push takes beyond its input.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::report::Row;
use crate::rounds::median;
use crate::sides::Function;
use crate::stage::Ids;

impl Bench {
    /// The backend's own memory (RssAnon) at its peak during a push, less what
    /// it was before and the input itself, over the input. A fresh session for
    /// each push: memory that was used once may stay with the process.
    pub fn memory(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let first = self.stage("memory, before", 10, Ids::Random)?;
        let mut sessions = 0..;
        for (kind, name, size, bytes) in [
            ("memory 0.7 KB", "memory of a push of 1000", 1000, crate::stage::PAYLOAD),
            ("memory 200 KB", "memory, 100 payloads of 200 KB", 100, 200_000),
        ] {
            let kind = self.stage_payloads(kind, size, Ids::Random, bytes)?;
            let input: i32 = self
                .admin
                .query_one(
                    "select octet_length(ops::text) from bench.staged where kind = $1 limit 1",
                    &[&kind.name],
                )?
                .get(0);
            let input = f64::from(input);
            let mut peaks = Vec::new();
            self.bar.inc_length(kind.batches as u64);
            for batch in 0..kind.batches.min(self.rounds + 1) {
                let before = |push: &mut Function| {
                    push.push(&first, sessions.next().context("a batch for each session")?)
                };
                peaks.push(self.extra_memory(before, |push| push.push(&kind, batch))? - input);
                self.bar.inc(1);
            }
            rows.push(Row::new(name, "bytes", median(peaks), "its input", input));
        }
        Ok(rows)
    }

    fn extra_memory(
        &self,
        before: impl FnOnce(&mut Function) -> Result<()>,
        push: impl FnOnce(&mut Function) -> Result<()>,
    ) -> Result<f64> {
        let mut function = Function::new(self.stand.connect()?, "sync_push")?;
        // What every session needs once, as what it knows of tables and indexes, is no push's.
        before(&mut function)?;
        let pid: i32 = function.client().query_one("select pg_backend_pid()", &[])?.get(0);
        let before = own_memory(pid)?;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut peak: f64 = 0.0;
                while !is_over.load(Ordering::Relaxed) {
                    peak = peak.max(own_memory(pid).unwrap_or(0.0));
                }
                peak
            });
            let pushed = push(&mut function);
            is_over.store(true, Ordering::Relaxed);
            let peak = watcher.join().ok().context("the watcher panicked")?;
            pushed?;
            Ok(peak - before)
        })
    }
}

/// Bytes that a process has to itself.
fn own_memory(pid: i32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes: f64 = line.context("no RssAnon")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024.0)
}
