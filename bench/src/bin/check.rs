//! Compares results of the benchmark with the targets.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use sync_ext_bench::report::{Report, Row, target, targeted};
use sync_ext_bench::rounds::median;

/// Compares results of the benchmark with the targets, a line each: the median of the runs, and
/// the lowest and the highest. Fails if a target is missed or was not measured.
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
        let runs = rows.iter().filter(|row| row.name == name);
        let ratios: Vec<f64> = runs.map(|row| row.ratio).collect();
        let (false, Some(target)) = (ratios.is_empty(), target(name)) else {
            missed += 1;
            println!("FAIL {name:34} was not measured");
            continue;
        };
        let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = ratios.iter().copied().fold(0.0, f64::max);
        let median = median(ratios);
        let is_met = target.is_met(median);
        missed += usize::from(!is_met);
        let verdict = if is_met { "pass" } else { "FAIL" };
        println!("{verdict} {name:34} {median:>6.2} {target} ({lowest:.2} to {highest:.2})");
    }
    println!("{missed} missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
