//! Compares results of the benchmark with the targets.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use sync_ext_bench::report::{Report, Row, target, targeted};

/// Compares results of the benchmark with the targets, a line each; fails if one is
/// missed or was not measured.
#[derive(Parser)]
struct Options {
    /// Results as JSON
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let mut rows: Vec<Row> = Vec::new();
    for path in Options::parse().files {
        let report: Report = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        rows.extend(report.rows);
    }
    let mut missed = 0;
    for name in targeted() {
        let row = rows.iter().find(|row| row.name == name);
        let (Some(row), Some(target)) = (row, target(name)) else {
            missed += 1;
            println!("FAIL {name:34} was not measured");
            continue;
        };
        let is_met = target.is_met(row.ratio);
        missed += usize::from(!is_met);
        let verdict = if is_met { "pass" } else { "FAIL" };
        println!("{verdict} {name:34} {:>6.2} {target}", row.ratio);
    }
    println!("{missed} missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
