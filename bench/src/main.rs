//! Runs workloads side by side on a throw-away cluster and writes
//! `target/bench/pgNN.json`.

use anyhow::{Context, Result};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use sync_ext_bench::bench::Bench;
use sync_ext_bench::report::{self, Row};

type Workload = fn(&mut Bench) -> Result<Vec<Row>>;

/// Of one client, then of several that run at once.
const ALONE: [(&str, Workload); 20] = [
    ("push-1000", Bench::thousands),
    ("push-100", Bench::hundreds),
    ("push-10", Bench::tens),
    ("push-1", Bench::ones),
    ("exchange", Bench::exchanges),
    ("time-ordered", Bench::time_ordered),
    ("payloads", Bench::payloads),
    ("updates", Bench::updates),
    ("mixed", Bench::mixed),
    ("patches", Bench::patches),
    ("oplog", Bench::oplog),
    ("pages", Bench::pages),
    ("filters", Bench::filters),
    ("decoding", Bench::decoding),
    ("polls", Bench::polls),
    ("snapshots", Bench::snapshots),
    ("scopes", Bench::scopes),
    ("access", Bench::access),
    ("own-tables", Bench::own_tables),
    ("many", Bench::many),
];
const TOGETHER: [(&str, Workload); 6] = [
    ("clients", Bench::clients),
    ("own-tables", Bench::own_tables_together),
    ("notify", Bench::notify),
    ("router", Bench::router),
    ("gc", Bench::gc),
    ("memory", Bench::memory),
];

/// Runs workloads side by side on a throw-away cluster and compares their times.
#[derive(Parser)]
struct Options {
    /// Fewer rounds with less work in each
    #[arg(long)]
    quick: bool,
    /// Groups of workloads to run [default: all]
    #[arg(value_name = "GROUP", value_parser = PossibleValuesParser::new(names()))]
    groups: Vec<String>,
}

fn names() -> impl Iterator<Item = &'static str> {
    ALONE.iter().chain(&TOGETHER).map(|(name, _)| *name)
}

fn main() -> Result<()> {
    let Options { quick, groups: wanted } = Options::parse();
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

    // A part of the benchmark does not replace the whole.
    let part = if wanted.is_empty() { "" } else { "-part" };
    report::finish(bench.stand.version()?, bench.rounds, rows, ["", part])
}
