//! Where a backend's time goes, by perf. Prints the share of each binary and the
//! functions on top; the recordings stay under `target/profile` for `perf report`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use clap::builder::PossibleValuesParser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::Client;
use serde_json::Value;
use sync_ext_bench::sides::{Floor, Function};
use sync_ext_bench::stage::{self, Ids, Kind};
use sync_ext_bench::stand;

const WORKLOADS: [&str; 12] = [
    "push-1000",
    "push-1000-ordered",
    "push-100",
    "push-10",
    "push-1",
    "replay-1000",
    "updates-1000",
    "pull-1000",
    "pull-100",
    "poll",
    "snapshot-1000",
    "floor-1000",
];
/// Records that lie in the tables before.
const RECORDS: usize = 200_000;
const SECONDS: f64 = 5.0;
const TOP: usize = 30;

/// Shows where a backend's time goes, by perf.
#[derive(Parser)]
struct Options {
    #[arg(value_name = "WORKLOAD", value_parser = PossibleValuesParser::new(WORKLOADS),
        default_values = ["push-1000", "floor-1000", "pull-1000"])]
    workloads: Vec<String>,
}

fn main() -> Result<()> {
    let Options { workloads } = Options::parse();
    let stand = stand::start("profile")?;
    let mut admin = stand.connect()?;
    println!("laying out {RECORDS} records");
    let known = kind("known", 1000, RECORDS, Ids::Random);
    stage::fill(&mut admin, &known)?;
    let mut push = Function::new(stand.connect()?, "sync_push")?;
    let mut floor = Floor::new(stand.connect()?)?;
    for batch in 0..known.batches {
        push.push(&known, batch)?;
        floor.insert(&known, batch)?;
    }
    drop((push, floor));
    for workload in &workloads {
        profile(workload, &known, &mut admin, &stand)?;
    }
    Ok(())
}

fn kind(name: &'static str, size: usize, ops: usize, ids: Ids) -> Kind {
    Kind { name, size, batches: ops / size, payload_bytes: stage::PAYLOAD, ids }
}

fn profile(workload: &str, known: &Kind, admin: &mut Client, stand: &stand::Stand) -> Result<()> {
    let mut client = stand.connect_pinned()?;
    let pid: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
    let fresh = match workload {
        "push-1000" | "floor-1000" => Some(("fresh", 1000, 300_000, Ids::Random)),
        "push-1000-ordered" => Some(("ordered", 1000, 300_000, Ids::TimeOrdered)),
        "push-100" => Some(("fresh 100", 100, 200_000, Ids::Random)),
        "push-10" => Some(("fresh 10", 10, 100_000, Ids::Random)),
        "push-1" => Some(("fresh 1", 1, 30_000, Ids::Random)),
        "updates-1000" => Some(("updates", 1000, RECORDS, Ids::Of { kind: known.name, clock: 2 })),
        _ => None,
    };
    let staged = fresh.map(|(name, size, ops, ids)| kind(name, size, ops, ids));
    if let Some(staged) = &staged {
        admin.batch_execute("delete from bench.rows where kind <> 'known'; delete from bench.staged where kind <> 'known'")?;
        stage::fill(admin, staged)?;
    }
    admin.batch_execute("checkpoint")?;
    let batches = staged.as_ref().unwrap_or(known);
    let (calls, units) = match workload {
        "floor-1000" => {
            let mut floor = Floor::new(client)?;
            record(workload, pid, batches.batches, |n| floor.insert(batches, n))?
        }
        "pull-1000" | "pull-100" | "poll" => {
            let page: i64 = if workload == "pull-1000" { 1000 } else { 100 };
            let sql = "select pg_column_size(sync_pull('w0', $1, $2))";
            let pull = client.prepare(sql)?;
            let head = stand::head(admin, "w0")?;
            record(workload, pid, usize::MAX, |n| {
                let from = if workload == "poll" { head } else { n as i64 * page % (head - page) };
                client.query_one(&pull, &[&from, &(page as i32)])?;
                Ok(())
            })?
        }
        "snapshot-1000" => {
            let sql = "select sync_snapshot('w0', $1, 1000)::text";
            let snapshot = client.prepare(sql)?;
            let mut token: Option<String> = None;
            record(workload, pid, usize::MAX, |_| {
                let reply: String = client.query_one(&snapshot, &[&token])?.get(0);
                let reply: Value = serde_json::from_str(&reply)?;
                token = reply["nextPageToken"].as_str().map(str::to_owned);
                Ok(())
            })?
        }
        _ => {
            let mut push = Function::new(client, "sync_push")?;
            let ends = if workload == "replay-1000" { usize::MAX } else { batches.batches };
            record(workload, pid, ends, |n| push.push(batches, n % batches.batches))?
        }
    };
    println!("\n{workload}: {:.1} us a call, {calls} calls", units * 1e6 / calls as f64);
    report(&recording(workload))
}

fn recording(workload: &str) -> PathBuf {
    PathBuf::from(format!("target/profile/{workload}.data"))
}

/// Calls until time or calls are up, under perf; how many, and their seconds.
fn record(
    workload: &str,
    pid: i32,
    calls: usize,
    mut call: impl FnMut(usize) -> Result<()>,
) -> Result<(usize, f64)> {
    let path = recording(workload);
    std::fs::create_dir_all(path.parent().context("a folder")?)?;
    let mut perf = start_perf(pid, &path)?;
    let begun = Instant::now();
    let mut done = 0;
    while done < calls && begun.elapsed().as_secs_f64() < SECONDS {
        call(done)?;
        done += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    kill(Pid::from_raw(perf.id() as i32), Signal::SIGINT)?;
    perf.wait()?;
    Ok((done, seconds))
}

/// perf is ready when it has mapped its buffers: its file has a header then.
fn start_perf(pid: i32, path: &Path) -> Result<Child> {
    let _ = std::fs::remove_file(path);
    let mut perf = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-F", "4999", "-p", &pid.to_string(), "-o"])
        .arg(path)
        .stdout(Stdio::null())
        .spawn()
        .context("perf does not start")?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while !std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        ensure!(Instant::now() < deadline, "perf records nothing");
        ensure!(perf.try_wait()?.is_none(), "perf ended");
        std::thread::yield_now();
    }
    Ok(perf)
}

fn report(path: &Path) -> Result<()> {
    for (order, top) in [("dso", 8), ("dso,symbol", TOP)] {
        let output = Command::new("perf")
            .args(["report", "--stdio", "-q", "--no-children", "--sort", order, "-i"])
            .arg(path)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        for line in text.lines().filter(|line| !line.trim().is_empty()).take(top) {
            // perf pads its columns, and ends with two that are empty here.
            println!("{}", line.trim_end_matches([' ', '-']));
        }
        println!();
    }
    Ok(())
}
