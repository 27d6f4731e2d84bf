//! What the server logs while a run goes on.

use anyhow::{Result, ensure};
use sync_ext_harness::cluster::Cluster;

/// Leave nothing to be logged but errors and warnings, each line with its
/// process and SQLSTATE, errors without the statement that met them.
pub const SETTINGS: [&str; 5] = [
    "fsync=off",
    "log_checkpoints=off",
    "log_line_prefix=%p %e ",
    "log_autovacuum_min_duration=-1",
    "log_min_error_statement=panic",
];

/// How far the log was read.
pub struct LogFile {
    bytes: usize,
}

impl LogFile {
    /// From here on.
    pub fn new(cluster: &Cluster) -> LogFile {
        LogFile { bytes: cluster.log().len() }
    }

    /// Fails on everything but errors with one of the SQLSTATEs, raised in the
    /// process `pid`: a warning of a leaked plan, snapshot or buffer would stand
    /// here. Gives the number of errors.
    pub fn expect_only(&self, cluster: &Cluster, pid: i32, allowed: &[&str]) -> Result<u64> {
        let log = cluster.log();
        let mut errors = 0;
        for line in log[self.bytes..].lines() {
            // The rest of what the line before began.
            if line.starts_with('\t') {
                continue;
            }
            let mut words = line.splitn(4, ' ');
            let (process, code) = (words.next(), words.next().unwrap_or_default());
            let kind = words.next().unwrap_or_default();
            let is_expected = match kind {
                "ERROR:" => process == Some(&pid.to_string()) && allowed.contains(&code),
                "DETAIL:" | "HINT:" | "CONTEXT:" | "STATEMENT:" => true,
                _ => false,
            };
            ensure!(is_expected, "the server logged: {line}");
            errors += u64::from(kind == "ERROR:");
        }
        Ok(errors)
    }
}
