//! What phones and backends did, counted.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use sync_ext_harness::outbox::Edit;

/// Of an op that was pushed.
pub enum Outcome {
    Applied,
    Lost,
    /// errorCode, SQLSTATE if there is one, and why.
    Refused(String, String, String),
}

#[derive(Default)]
struct Kind {
    applied: usize,
    lost: usize,
    refused: usize,
}

#[derive(Default)]
pub struct Report {
    kinds: BTreeMap<&'static str, Kind>,
    refused: BTreeMap<(String, String, String), usize>,
    pub pushes: usize,
    pub pushes_given_up: usize,
    pub yielded: i64,
    pub transactions: usize,
    /// By a constraint, or for a deadlock of statements.
    pub transactions_refused: usize,
    /// Without those that cascades change.
    pub rows: u64,
    pub captured: i64,
    pub rows_at_end: i64,
}

impl Report {
    pub fn add(&mut self, edit: &Edit, outcome: Outcome) {
        let name = match edit {
            Edit::Put(_) => "puts",
            Edit::Patch { .. } => "patches",
            Edit::Delete => "deletes",
        };
        let kind = self.kinds.entry(name).or_default();
        match outcome {
            Outcome::Applied => kind.applied += 1,
            Outcome::Lost => kind.lost += 1,
            Outcome::Refused(code, state, why) => {
                kind.refused += 1;
                *self.refused.entry((code, state, why)).or_default() += 1;
            }
        }
    }

    /// Adds what another session did.
    pub fn join(&mut self, other: Report) {
        for (name, kind) in other.kinds {
            let so_far = self.kinds.entry(name).or_default();
            so_far.applied += kind.applied;
            so_far.lost += kind.lost;
            so_far.refused += kind.refused;
        }
        for (why, count) in other.refused {
            *self.refused.entry(why).or_default() += count;
        }
        self.pushes += other.pushes;
        self.pushes_given_up += other.pushes_given_up;
        self.transactions += other.transactions;
        self.transactions_refused += other.transactions_refused;
        self.rows += other.rows;
    }

    pub fn print(&self) {
        println!("{:24} {:>12} {:>12} {:>12}", "", "applied", "lost", "refused");
        for (name, Kind { applied, lost, refused }) in &self.kinds {
            println!("{name:24} {applied:>12} {lost:>12} {refused:>12}");
        }
        println!("refused ops");
        for ((code, state, why), count) in &self.refused {
            println!("{count:>8}  {code:16} {state:5}  {why}");
        }
        for (name, count) in [
            ("pushes", self.pushes),
            ("  that yielded to SQL", self.yielded as usize),
            ("  given up, sent again", self.pushes_given_up),
            ("SQL transactions", self.transactions),
            ("  refused, not at COMMIT", self.transactions_refused),
            ("rows changed by SQL", self.rows as usize),
            ("ops captured", self.captured as usize),
            ("rows at the end", self.rows_at_end as usize),
        ] {
            println!("{name:24} {count:>12}");
        }
    }

    /// Was each rule of the tables broken?
    pub fn check(&self) -> Result<()> {
        for expected in ["23502", "23503", "23505", "23514", "UNAUTHORIZED", "VALIDATION_ERROR"] {
            let is_there =
                self.refused.keys().any(|(code, state, _)| expected == code || expected == state);
            ensure!(is_there, "no op was refused by {expected}");
        }
        Ok(())
    }
}
