//! Rows of the result, their targets, the table and the JSON.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::stand::SETTINGS;

/// One comparison: medians over the rounds, and the median of their ratios.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub unit: String,
    pub ours: f64,
    pub base_name: String,
    pub base: f64,
    /// ours / base.
    pub ratio: f64,
}

impl Row {
    /// A comparison of two figures.
    pub fn new(name: &str, unit: &str, ours: f64, base_name: &str, base: f64) -> Row {
        Row {
            name: name.to_owned(),
            unit: unit.to_owned(),
            ours,
            base_name: base_name.to_owned(),
            base,
            ratio: ours / base,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub postgres: String,
    pub settings: Vec<String>,
    pub rounds: usize,
    pub rows: Vec<Row>,
}

/// What a ratio must keep to.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub fn is_met(self, ratio: f64) -> bool {
        match self {
            Target::AtMost(limit) => ratio <= limit,
            Target::AtLeast(limit) => ratio >= limit,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::AtMost(limit) => write!(f, "<= {limit:.2}"),
            Target::AtLeast(limit) => write!(f, ">= {limit:.2}"),
        }
    }
}

/// The targets, by the name of the row. Times are per op, page or call, so a
/// target to be n times as fast is a ratio of at most 1/n.
const TARGETS: [(&str, Target); 55] = [
    ("push 1000", Target::AtMost(1.00)),
    ("push 100", Target::AtMost(1.00)),
    ("push 10", Target::AtMost(0.90)),
    ("push 1, sync commit", Target::AtMost(1.00)),
    ("push 1, async commit", Target::AtMost(1.00)),
    ("exchange of 1, up to date", Target::AtMost(1.15)),
    ("push 1000, time-ordered ids", Target::AtMost(0.90)),
    ("replay of 1000, at once", Target::AtMost(0.15)),
    ("replay of 1000, later", Target::AtMost(0.30)),
    ("losers, 1000", Target::AtMost(1.15)),
    ("updates, 1000", Target::AtMost(1.00)),
    ("HOT share of record updates", Target::AtLeast(0.90)),
    ("patches, 1000", Target::AtMost(1.40)),
    ("log of 1000 patches of 200 KB", Target::AtMost(1.00)),
    ("pull of patched records, a KB", Target::AtMost(1.30)),
    ("push 1000 / expert PL/pgSQL", Target::AtMost(0.40)),
    ("push 100 / tutorial PL/pgSQL", Target::AtMost(0.10)),
    ("push 1000 / SQLite", Target::AtMost(0.33)),
    ("pull, pages of 1000", Target::AtMost(1.15)),
    ("pull, pages of 100", Target::AtMost(1.30)),
    ("pull, pages of 1000 / json_agg", Target::AtMost(0.167)),
    ("empty poll", Target::AtMost(1.30)),
    ("pull, latest of a tenth", Target::AtMost(1.00)),
    ("snapshot, pages of 1000", Target::AtMost(0.50)),
    ("pull, scope of 1 % of 100,000", Target::AtMost(1.20)),
    ("snapshot of a scope, a row", Target::AtMost(1.20)),
    ("one scope more than 10, a row", Target::AtMost(1.20)),
    ("push 1, sync commit, checked", Target::AtMost(1.15)),
    ("push 1, async commit, checked", Target::AtMost(1.15)),
    ("pull, pages of 100, checked", Target::AtMost(1.15)),
    ("notify hint, 1 client", Target::AtLeast(0.97)),
    ("notify hint, 8 clients", Target::AtLeast(0.97)),
    ("notify hint, 32 clients", Target::AtLeast(0.97)),
    ("8 clients, 8 workspaces", Target::AtLeast(1.00)),
    ("8 clients, 1 workspace", Target::AtLeast(1.00)),
    ("8 clients, 1000 workspaces", Target::AtLeast(1.00)),
    ("WAL per op, push 1000", Target::AtMost(0.90)),
    ("GC, 1000 due of 400,000 workspaces", Target::AtMost(0.10)),
    ("GC batch p99, 400,000 workspaces", Target::AtMost(1.00)),
    ("push p99, GC there", Target::AtMost(1.50)),
    ("push p99, GC elsewhere", Target::AtMost(1.50)),
    ("captured INSERT, 1000 rows", Target::AtMost(3.00)),
    ("captured UPDATE, 1000 rows", Target::AtMost(2.60)),
    ("captured INSERT, 10 / trigger", Target::AtMost(0.33)),
    ("captured INSERT, 1000 / trigger", Target::AtMost(0.125)),
    ("captured UPDATE, 1 client", Target::AtLeast(0.77)),
    ("captured UPDATE, 8 clients", Target::AtLeast(0.80)),
    ("push 1000, typed", Target::AtMost(2.20)),
    ("push 1000, typed, 10 of them bad", Target::AtMost(6.00)),
    ("push 1000, typed / loop", Target::AtMost(0.25)),
    ("check, a row", Target::AtMost(2.00)),
    ("backfill, lock of 1000 rows", Target::AtMost(1.00)),
    ("memory of a push of 1000", Target::AtMost(1.00)),
    ("10^7 entries, one workspace", Target::AtMost(1.00)),
    ("10^7 entries, 10^5 workspaces", Target::AtMost(1.20)),
];

pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(row, _)| *row == name).map(|(_, target)| *target)
}

/// The names of rows that have a target.
pub fn targeted() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|(name, _)| *name)
}

/// Prints the rows and writes them to `target/bench/<prefix>pg<major><suffix>.json`.
pub fn finish(
    postgres: String,
    rounds: usize,
    rows: Vec<Row>,
    [prefix, suffix]: [&str; 2],
) -> Result<()> {
    let major = postgres.split('.').next().context("a version")?;
    let path = PathBuf::from(format!("target/bench/{prefix}pg{major}{suffix}.json"));
    let settings = SETTINGS.map(str::to_owned).to_vec();
    let report = Report { postgres, settings, rounds, rows };
    report.print();
    std::fs::create_dir_all("target/bench")?;
    std::fs::write(&path, serde_json::to_string_pretty(&report)?)?;
    println!("written to {}", path.display());
    Ok(())
}

impl Report {
    fn print(&self) {
        println!(
            "Postgres {}, {} rounds; {}",
            self.postgres,
            self.rounds,
            self.settings.join(", ")
        );
        println!(
            "{:34} {:>10} {:>10} {:8} {:24} {:>6} {:>8}",
            "", "sync_ext", "other", "", "", "ratio", "target"
        );
        for row in &self.rows {
            let Row { name, unit, ours, base_name, base, ratio } = row;
            let target = target(name).map(|target| target.to_string()).unwrap_or_default();
            println!(
                "{name:34} {ours:>10.2} {base:>10.2} {unit:8} {base_name:24} {ratio:>6.2} {target:>8}"
            );
        }
    }
}
