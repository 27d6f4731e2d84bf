//! Rows of the result, their targets, the table and the JSON.

use anyhow::Result;
use serde::{Deserialize, Serialize};

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

/// The targets, by the name of the row. Times are per op or page, so a target
/// to be n times as fast is a ratio of at most 1/n.
const TARGETS: [(&str, Target); 18] = [
    ("push 1000", Target::AtMost(1.15)),
    ("push 100", Target::AtMost(1.10)),
    ("push 10", Target::AtMost(0.90)),
    ("push 1, async commit", Target::AtMost(1.05)),
    ("push 1000, time-ordered ids", Target::AtMost(1.00)),
    ("replay of 1000", Target::AtMost(0.25)),
    ("losers, 1000", Target::AtMost(1.15)),
    ("updates, 1000", Target::AtMost(1.00)),
    ("HOT share of record updates", Target::AtLeast(0.90)),
    ("push 1000 / expert PL/pgSQL", Target::AtMost(0.40)),
    ("push 100 / tutorial PL/pgSQL", Target::AtMost(0.10)),
    ("push 1000 / SQLite", Target::AtMost(0.33)),
    ("pull, pages of 1000", Target::AtMost(1.15)),
    ("pull, pages of 100", Target::AtMost(1.30)),
    ("pull, pages of 1000 / json_agg", Target::AtMost(0.167)),
    ("empty poll", Target::AtMost(1.30)),
    ("8 clients, 8 workspaces", Target::AtLeast(0.95)),
    ("8 clients, one workspace", Target::AtLeast(1.00)),
];

const WAL: (&str, Target) = ("WAL per op, push 1000", Target::AtMost(1.05));

pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().chain([&WAL]).find(|(row, _)| *row == name).map(|(_, target)| *target)
}

impl Report {
    pub fn print(&self) {
        println!(
            "Postgres {}, {} rounds; {}",
            self.postgres,
            self.rounds,
            self.settings.join(", ")
        );
        println!(
            "{:32} {:>10} {:>10} {:8} {:24} {:>6} {:>8}",
            "", "sync_ext", "other", "", "", "ratio", "target"
        );
        for row in &self.rows {
            let Row { name, unit, ours, base_name, base, ratio } = row;
            let target = target(name).map(|target| target.to_string()).unwrap_or_default();
            println!(
                "{name:32} {ours:>10.2} {base:>10.2} {unit:8} {base_name:24} {ratio:>6.2} {target:>8}"
            );
        }
    }

    pub fn write(&self, path: &std::path::Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)?)?;
        Ok(())
    }
}
