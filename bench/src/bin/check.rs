//! `check FILE`: compares a result of the benchmark with the targets, a line
//! each; exits non-zero if one is missed or was not measured.

use std::process::ExitCode;

use anyhow::{Context, Result};
use sync_ext_bench::report::{Report, target};

fn main() -> Result<ExitCode> {
    let path = std::env::args().nth(1).context("usage: check FILE")?;
    let report: Report = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let mut missed = 0;
    for row in &report.rows {
        let Some(target) = target(&row.name) else { continue };
        let verdict = if target.is_met(row.ratio) { "pass" } else { "FAIL" };
        missed += usize::from(!target.is_met(row.ratio));
        println!("{verdict} {:32} {:>6.2} {target}", row.name, row.ratio);
    }
    println!("{missed} missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
