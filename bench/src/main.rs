//! `bench [--quick] [GROUP...]`: runs workloads side by side on a throw-away
//! cluster and writes `target/bench/pgNN.json` and a chart.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use sync_ext_bench::bench::Bench;
use sync_ext_bench::report::{Report, Row};
use sync_ext_bench::stand::SETTINGS;

type Workload = fn(&mut Bench) -> Result<Vec<Row>>;

/// Of one client, then of several that run at once.
const ALONE: [(&str, Workload); 14] = [
    ("push-1000", Bench::thousands),
    ("push-100", Bench::hundreds),
    ("push-10", Bench::tens),
    ("push-1", Bench::ones),
    ("time-ordered", Bench::time_ordered),
    ("payloads", Bench::payloads),
    ("updates", Bench::updates),
    ("mixed", Bench::mixed),
    ("oplog", Bench::oplog),
    ("pages", Bench::pages),
    ("filters", Bench::filters),
    ("polls", Bench::polls),
    ("snapshots", Bench::snapshots),
    ("access", Bench::access),
];
const TOGETHER: [(&str, Workload); 4] = [
    ("clients", Bench::clients),
    ("notify", Bench::notify),
    ("gc", Bench::gc),
    ("memory", Bench::memory),
];

fn main() -> Result<()> {
    let (options, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let quick = match options.as_slice() {
        [] => false,
        [option] if option == "--quick" => true,
        _ => bail!("usage: bench [--quick] [GROUP...]"),
    };
    let names: Vec<&str> = ALONE.iter().chain(&TOGETHER).map(|(group, _)| *group).collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("unknown group {unknown}; there are {}", names.join(", "));
    }
    let mut bench = Bench::start(quick)?;
    let mut rows = Vec::new();
    let mut run = |bench: &mut Bench, (name, workload): (&'static str, Workload)| {
        if wanted.is_empty() || wanted.iter().any(|group| group == name) {
            bench.bar.set_message(name);
            rows.extend(workload(bench).with_context(|| format!("in group {name}"))?);
        }
        anyhow::Ok(())
    };
    bench.pin()?;
    ALONE.into_iter().try_for_each(|group| run(&mut bench, group))?;
    bench.unpin()?;
    TOGETHER.into_iter().try_for_each(|group| run(&mut bench, group))?;
    bench.bar.finish_and_clear();

    let postgres: String =
        bench.admin.query_one("select current_setting('server_version')", &[])?.get(0);
    let settings = SETTINGS.iter().map(|setting| setting.to_string()).collect();
    let report = Report { postgres, settings, rounds: bench.rounds, rows };
    report.print();
    let major = report.postgres.split('.').next().context("a version")?;
    // A part of the benchmark does not replace the whole.
    let part = if wanted.is_empty() { "" } else { "-part" };
    let stem = PathBuf::from(format!("target/bench/pg{major}{part}"));
    report.write(&stem)?;
    println!("written to {0}.json and {0}.svg", stem.display());
    Ok(())
}
