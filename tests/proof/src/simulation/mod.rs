//! Devices over workspaces and sessions, with faults: a seeded history of steps
//! is played on a real server and on the model of the contract, and every reply
//! and every row must be what the model says.
//!
//! Sessions are interleaved step by step: a transaction that has pushed stays
//! open while others push, pull, collect or wait for its lock, so a seed gives
//! the same history each time. (Races that nobody orders are [`crate::crash`]'s.)
//! At the end faults cease, all devices drain, and all must agree with the
//! server and with the ops that were accepted.
//!
//! Time is the simulation's own: entries and heartbeats are turned back to it
//! in the transaction that wrote them, and GC is given what is old by it.
//!
//! * [`step`]: histories out of seeds
//! * [`op`]: what is sent
//! * [`peer`]: a device and what is around it; [`session`]: a connection
//! * [`world`]: plays a step; [`pushing`], [`exchanging`], [`reading`],
//!   [`collecting`]
//! * [`check`]: what must hold at any time, and at the end

mod check;
mod collecting;
mod exchanging;
mod op;
mod peer;
mod pushing;
mod reading;
mod session;
mod step;
mod world;

use anyhow::{Context, Result};
use sync_ext_harness::cluster::Cluster;

use crate::common::shorten;
use crate::common::tally::Tally;
use step::Step;
pub use world::DATABASE;
use world::World;

/// A server with what the simulation needs.
pub fn start(name: &str) -> Result<Cluster> {
    // A killed postmaster loses nothing that the kernel holds, so fsync can be
    // off; what a dead machine loses is not simulated.
    let cluster = Cluster::start(name, &["fsync=off", "autovacuum_naptime=5s"])?;
    cluster.create_database(DATABASE)?;
    Ok(cluster)
}

/// Plays the history of a seed.
pub fn run(cluster: &mut Cluster, seed: u64, steps: usize) -> Result<Tally> {
    let said = format!("seed {seed}, {steps} steps");
    shorten::play(step::history(seed, steps), &said, |part| play(cluster, part))
}

fn play(cluster: &mut Cluster, history: &[Step]) -> Result<Tally> {
    let span: i64 = history.iter().map(|step| step.minutes * 60).sum();
    if !cluster.is_running() {
        cluster.start_server()?;
    }
    let mut world = World::new(cluster, span)?;
    for (number, step) in history.iter().enumerate() {
        world.play(step).with_context(|| format!("step {number}, {:?}", step.action))?;
    }
    world.heal().context("after the last step")?;
    Ok(world.tally)
}
