//! `check FILE...`: compares results of the benchmark with the targets, a line
//! each; exits non-zero if one is missed or was not measured.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use sync_ext_bench::report::{Report, Row, target, targeted};

fn main() -> Result<ExitCode> {
    let mut rows: Vec<Row> = Vec::new();
    for path in std::env::args().skip(1) {
        let report: Report = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        rows.extend(report.rows);
    }
    ensure!(!rows.is_empty(), "usage: check FILE...");
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
