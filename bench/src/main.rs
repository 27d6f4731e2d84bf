//! `bench [--quick]`: runs everything side by side on a throw-away cluster and
//! writes `target/bench/pgNN.json`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use sync_ext_bench::clients::{Spread, rates};
use sync_ext_bench::pushes::Bench;
use sync_ext_bench::report::Report;
use sync_ext_bench::stage::{self, Ids};
use sync_ext_cluster::cluster::Cluster;

/// fsync is on. No autovacuum and no checkpoint but the ones that the benchmark
/// asks for, so that they fall on no side.
const SETTINGS: [&str; 7] = [
    "fsync=on",
    "shared_buffers=2GB",
    "max_wal_size=32GB",
    "checkpoint_timeout=1d",
    "autovacuum=off",
    "jit=off",
    "max_connections=50",
];

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, work, ops) = if quick { (5, 5_000, 200) } else { (9, 20_000, 1_000) };
    let cluster = Cluster::start("bench", &SETTINGS)?;
    let mut admin = cluster.create_database("bench")?;
    admin.batch_execute("select sync_register_table('notes')")?;
    for peer in [
        include_str!("../peers/floor.sql"),
        include_str!("../peers/expert.sql"),
        include_str!("../peers/tutorial.sql"),
    ] {
        admin.batch_execute(peer)?;
    }
    stage::create(&mut admin)?;
    let postgres: String = admin.query_one("select current_setting('server_version')", &[])?.get(0);

    let style = ProgressStyle::with_template("{msg:30} [{bar:30}] {pos}/{len} {elapsed}")?;
    // Rounds, the warming one included, of 31 sides.
    let bar = ProgressBar::new(31 * (rounds as u64 + 1)).with_style(style.progress_chars("=> "));
    let mut bench = Bench { cluster: &cluster, admin, bar: bar.clone(), rounds, work };
    let mut rows = Vec::new();
    bar.set_message("pushes of 1000");
    rows.extend(bench.thousands()?);
    bar.set_message("pushes of 100, 10 and 1");
    rows.extend(bench.against_floor("push 100", "fresh 100", 100, Ids::Random, "on")?);
    rows.extend(bench.tutorial()?);
    rows.extend(bench.against_floor("push 10", "fresh 10", 10, Ids::Random, "on")?);
    rows.extend(bench.against_floor("push 1, async commit", "fresh 1", 1, Ids::Random, "off")?);
    bar.set_message("time-ordered ids");
    let name = "push 1000, time-ordered ids";
    rows.extend(bench.against_floor(name, "ordered", 1000, Ids::TimeOrdered, "on")?);
    bar.set_message("updates");
    rows.extend(bench.updates()?);
    bar.set_message("pulls");
    rows.extend(bench.pages("pull, pages of 1000", 1000, true)?);
    rows.extend(bench.pages("pull, pages of 100", 100, false)?);
    rows.extend(bench.empty_polls()?);
    bar.set_message("8 clients");
    for (name, spread) in
        [("8 clients, 8 workspaces", Spread::Apart), ("8 clients, one workspace", Spread::Together)]
    {
        rows.extend(rates(&cluster, &bar, rounds, ops, name, spread)?);
    }
    bar.finish_and_clear();

    let settings = SETTINGS.iter().map(|setting| setting.to_string()).collect();
    let report = Report { postgres, settings, rounds, rows };
    report.print();
    let major = report.postgres.split('.').next().context("a version")?.to_owned();
    let path = PathBuf::from(format!("target/bench/pg{major}.json"));
    report.write(&path)?;
    println!("written to {}", path.display());
    Ok(())
}
