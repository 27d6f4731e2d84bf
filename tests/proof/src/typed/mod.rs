//! An app with typed tables against a model that knows both sides: its rows, and the log,
//! the records and the replies.
//!
//! A seeded history of plain SQL and of devices' pushes is played on a real server and on
//! the model, one step after the other. After each step all rows, records and entries must
//! be what the model says; of the server's own ops the hlc and opId, which cannot be
//! foretold, are taken from the log, in the right form and order. Left out are batches in
//! which a unique value moves from one updated row to another: Postgres chooses the order.
//! (Sessions that meet are [`crate::own_tables`]'s.)
//!
//! * [`schema`]: the app's tables
//! * [`rows`]: what Postgres makes of changes; [`statement`]: of SQL; [`apply`]: of pushes
//! * [`step`], [`chance`]: histories out of seeds; [`device`]: who pushes
//! * [`world`]: plays a step; [`calling`], [`transaction`]: calls, alone and together;
//!   [`repair`]: comparisons and repairs, GC, pulls

mod apply;
mod calling;
mod chance;
mod device;
mod repair;
mod rows;
mod schema;
mod statement;
mod step;
mod transaction;
mod world;

use anyhow::{Context, Result};
use sync_ext_harness::cluster::Cluster;

use crate::common::shorten;
use crate::common::tally::Tally;
use step::{DATABASE, Step};
use world::World;

/// A server with the app's tables.
pub fn start(name: &str) -> Result<Cluster> {
    let cluster = Cluster::start(
        name,
        &["fsync=off", "autovacuum_naptime=5s", "max_prepared_transactions=2"],
    )?;
    let mut client = cluster.create_database(DATABASE)?;
    client.batch_execute(schema::TABLES)?;
    for table in &schema::TABLE {
        // Until then rows without records may be older than the attachment.
        client.batch_execute(&format!("call sync_backfill_table('{}')", table.name))?;
    }
    Ok(cluster)
}

/// Plays the history of a seed.
pub fn run(cluster: &Cluster, seed: u64, steps: usize) -> Result<Tally> {
    let said = format!("seed {seed}, {steps} steps");
    shorten::play(step::history(seed, steps), &said, |part| play(cluster, part))
}

fn play(cluster: &Cluster, history: &[Step]) -> Result<Tally> {
    let mut world = World::new(cluster)?;
    for (number, step) in history.iter().enumerate() {
        let played = world.play(step);
        played.with_context(|| {
            format!("step {number}, {:?}, after\n{}\n", step.action, world.executed.join("\n"))
        })?;
        world.tally.add("steps", 1);
    }
    world.check_tables()?;
    Ok(world.tally)
}
