//! The long form: `proof [--seed N] [--minutes N] [PART...]`.
//!
//! Each part runs on clusters of its own and prints what it did; the first
//! violation ends it, with what reproduces it. `--minutes` is how long the
//! simulation goes on; the other parts have their sizes.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sync_ext_harness::cluster::Cluster;
use sync_ext_proof::common::tally::Tally;
use sync_ext_proof::hostile::large;
use sync_ext_proof::long_life::{churn, errors, session};
use sync_ext_proof::{access, crash, hostile, moves, own_tables, simulation, typed};

/// Steps of a history: long enough for tombstones to be purged and devices to
/// fall silent and come back, short enough for many.
const STEPS: usize = 1_000;
/// Histories of users, of as many steps.
const ACCESS: u64 = 120;
const CRASHES: usize = 100;
const HOSTILE_BATCHES: u64 = 100_000;
const LARGE: large::Sizes =
    large::Sizes { space: 900_000_000, ops: 1_000_000, depth: 100_000, payload: 250_000_000 };
/// Pushes, and as many pulls, in one session.
const SESSION: u64 = 100_000;
/// A day with GC every minute.
const CHURN: usize = 24 * 60;
/// Of each kind.
const ERRORS: u64 = 10_000;
const OWN_TABLES: Duration = Duration::from_secs(180);
/// Between comparisons of log and tables.
const OWN_TABLES_ROUND: Duration = Duration::from_secs(5);
const MOVES: Duration = Duration::from_secs(180);
/// Between checks of what was acknowledged.
const MOVES_ROUND: Duration = Duration::from_secs(15);
const TYPED: Duration = Duration::from_secs(300);
/// Steps of its histories: with more, the rows have seen everything.
const TYPED_STEPS: usize = 200;
/// Servers that simulations run on at a time.
const SERVERS: u64 = 2;

struct Options {
    seed: u64,
    minutes: u64,
    parts: Vec<String>,
}

type Part = fn(&Options) -> Result<Tally>;

const PARTS: [(&str, Part); 8] = [
    ("simulation", simulate),
    ("access", access),
    ("crash", crash),
    ("hostile", hostile),
    ("long-life", long_life),
    ("moves", moves),
    ("own_tables", own_tables),
    ("typed", typed),
];

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proof: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options { seed: 1, minutes: 10, parts: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> {
            let value = arguments.next().with_context(|| format!("{argument} needs a number"))?;
            value.parse().with_context(|| format!("{argument} {value}"))
        };
        match argument.as_str() {
            "--seed" => options.seed = number()?,
            "--minutes" => options.minutes = number()?,
            part if PARTS.iter().any(|(name, _)| *name == part) => {
                options.parts.push(argument);
            }
            other => {
                let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
                bail!("{other} is none of --seed, --minutes, {}", names.join(", "));
            }
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    for (name, part) in PARTS {
        if !options.parts.is_empty() && !options.parts.iter().any(|chosen| chosen == name) {
            continue;
        }
        println!("{name}, from seed {}", options.seed);
        let started = Instant::now();
        let tally = part(options).with_context(|| name)?;
        print!("{tally}");
        println!("  violations: 0");
        println!("  seconds: {}", started.elapsed().as_secs());
    }
    Ok(())
}

fn simulate(options: &Options) -> Result<Tally> {
    let deadline = Instant::now() + Duration::from_secs(options.minutes * 60);
    let total = Mutex::new(Tally::default());
    let (next_seed, failed) = (AtomicU64::new(options.seed), AtomicBool::new(false));
    let run_on = |server: u64| -> Result<()> {
        let mut cluster = simulation::start(&format!("simulation-{server}"))?;
        while Instant::now() < deadline && !failed.load(Ordering::SeqCst) {
            let seed = next_seed.fetch_add(1, Ordering::SeqCst);
            let outcome = simulation::run(&mut cluster, seed, STEPS);
            failed.fetch_or(outcome.is_err(), Ordering::SeqCst);
            total.lock().expect("nobody panics with it").join(&outcome?);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let run_on = &run_on;
        let runs: Vec<_> = (0..SERVERS).map(|server| scope.spawn(move || run_on(server))).collect();
        runs.into_iter().try_for_each(|run| run.join().unwrap_or_else(|_| bail!("a run panicked")))
    })?;
    println!("  seeds: to {}, {STEPS} steps each", next_seed.into_inner() - 1);
    Ok(total.into_inner().expect("nobody panics with it"))
}

fn access(options: &Options) -> Result<Tally> {
    let cluster = access::start("proof-access")?;
    let mut tally = Tally::default();
    for seed in options.seed..options.seed + ACCESS {
        tally.join(&access::run(&cluster, seed, STEPS)?);
    }
    Ok(tally)
}

fn crash(options: &Options) -> Result<Tally> {
    let mut cluster = crash::start("proof-crash")?;
    crash::run(&mut cluster, options.seed, CRASHES)
}

fn hostile(options: &Options) -> Result<Tally> {
    let cluster = Cluster::start("proof-hostile", &hostile::SETTINGS)?;
    let mut tally = hostile::run(&cluster, options.seed, HOSTILE_BATCHES)?;
    drop(cluster);
    let cluster = Cluster::start("proof-large", &large::SETTINGS)?;
    tally.join(&large::run(&cluster, options.seed, LARGE)?);
    Ok(tally)
}

fn moves(options: &Options) -> Result<Tally> {
    let servers = moves::start("proof-moves")?;
    let (begun, mut seed) = (Instant::now(), options.seed);
    let mut tally = Tally::default();
    while begun.elapsed() < MOVES {
        tally.join(&moves::run(&servers, seed, MOVES_ROUND, None)?);
        seed += 1;
    }
    Ok(tally)
}

fn own_tables(options: &Options) -> Result<Tally> {
    let mut cluster = own_tables::start("proof-own-tables")?;
    own_tables::run(&mut cluster, options.seed, OWN_TABLES, OWN_TABLES_ROUND)
}

fn typed(options: &Options) -> Result<Tally> {
    let cluster = typed::start("proof-typed")?;
    let (deadline, mut seed) = (Instant::now() + TYPED, options.seed);
    let mut tally = Tally::default();
    while Instant::now() < deadline {
        tally.join(&typed::run(&cluster, seed, TYPED_STEPS)?);
        seed += 1;
    }
    println!("  seeds: to {}, {TYPED_STEPS} steps each", seed - 1);
    Ok(tally)
}

fn long_life(options: &Options) -> Result<Tally> {
    let cluster = Cluster::start("proof-session", &session::SETTINGS)?;
    let mut tally = session::run(&cluster, options.seed, SESSION)?;
    tally.join(&errors::run(&cluster, ERRORS)?);
    drop(cluster);
    let cluster = Cluster::start("proof-churn", &churn::SETTINGS)?;
    tally.join(&churn::run(&cluster, options.seed, CHURN)?);
    Ok(tally)
}
