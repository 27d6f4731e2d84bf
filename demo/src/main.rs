//! The main job on real input: devices push a real op log into a throw-away
//! cluster, others catch up, the log is collected, and all must agree. Once as
//! trusted callers, once as members of a workspace, by a role that may not do
//! without a user. Then once more with patches. In a second act, devices push to the
//! typed tables of an app that changes them by plain SQL, see `own_tables` of the library.
//!
//! * [`replay`]: the op log through one workspace
//! * [`patching`]: the same with patches
//! * [`callers`]: who the devices are to the server
//! * [`report`]: what came out, and whether it is right

mod callers;
mod patching;
mod replay;
mod report;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use postgres::Client;
use sync_ext_demo::own_tables;
use sync_ext_harness::cluster::Cluster;

use callers::Callers;
use replay::{SEED, replay};

/// Where Ctrl-C finds the cluster to stop and remove.
static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);

/// What fails from now on fails because its cluster is going.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if INTERRUPTED.load(Ordering::SeqCst) => loop {
            // The handler ends the process when the cluster is gone.
            std::thread::park();
        },
        Err(error) => {
            eprintln!("demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        // Whoever holds the lock is starting or stopping the cluster already.
        if let Ok(mut cluster) = CLUSTER.lock() {
            drop(cluster.take());
        }
        std::process::exit(130);
    })?;
    println!("starting a throw-away cluster");
    start_cluster()?;
    let result = replay_all().and_then(|()| share_tables());
    if let Ok(mut cluster) = CLUSTER.lock() {
        drop(cluster.take());
    }
    result
}

fn start_cluster() -> Result<()> {
    let mut held = CLUSTER.lock().expect("no other thread has failed with the lock");
    // Room for both rounds' devices: a session ends a little after its client.
    let cluster = Cluster::start("demo", &["max_connections=300", own_tables::SETTING])?;
    let mut admin = cluster.create_database("demo")?;
    admin.batch_execute("select sync_register_table('files'), sync_register_table('commits')")?;
    admin.batch_execute(callers::GATEWAY)?;
    cluster.create_database("app")?.batch_execute(own_tables::TABLES)?;
    *held = Some(cluster);
    Ok(())
}

/// A connection to the database of the op log.
fn connect(role: &str) -> Result<Client> {
    connect_to("demo", role)
}

fn connect_to(database: &str, role: &str) -> Result<Client> {
    let held = CLUSTER.lock().expect("no other thread has failed with the lock");
    let cluster = held.as_ref().context("interrupted")?;
    Ok(cluster.connect_as(role, database, "")?)
}

fn replay_all() -> Result<()> {
    let trusted = replay("trusted", Callers::trusted()?)?;
    let members = replay("members", Callers::members("members")?)?;
    report::print([("trusted", &trusted), ("members", &members)]);
    trusted.check()?;
    members.check()?;
    patching::replay()?;
    println!("all equal");
    Ok(())
}

fn share_tables() -> Result<()> {
    println!("\ntyped tables, changed by devices and by plain SQL at the same time");
    own_tables::run(&|role| connect_to("app", role), SEED, Duration::from_secs(5))?;
    println!("tables, records and devices equal");
    Ok(())
}
