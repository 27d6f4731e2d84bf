//! Users with changing roles over workspaces and tables, shared and private: a
//! seeded history of calls is played on a real server and on the model of the
//! contract, and every reply and every row must be what the model says.
//!
//! Beside the model, and without it, two things are judged:
//!
//! * secrecy ([`secrets`]): what a user is shown holds nothing of another's diary;
//! * silence: who is not a member is refused in the very words that they are
//!   refused in for a workspace that there is not.
//!
//! Users meet: names and opIds are few, batches are sent again by others, page
//! tokens, cursors and proofs are handed around. Batches have 1 to 20 ops, so
//! that they are stored in each way that there is. One history in four has its
//! roles given by the app, through a membership function.
//!
//! * [`step`], [`ops`]: histories out of seeds; [`op`]: what is sent
//! * [`session`], [`world`], [`syncing`], [`looking`]: plays a step; [`asking`]:
//!   makes a call and judges it
//! * [`check`]: steps that are counted in rows

mod asking;
mod check;
mod looking;
mod op;
mod ops;
mod secrets;
mod session;
mod step;
mod syncing;
mod world;

use anyhow::{Context, Result};
use sync_ext_harness::cluster::Cluster;

use crate::common::shorten;
use crate::common::tally::Tally;
use step::Step;
use world::World;

pub const DATABASE: &str = "access";
/// Who calls: may execute the functions, read the views, and nothing else.
pub const ROLE: &str = "caller";

/// A server with what the run needs.
pub fn start(name: &str) -> Result<Cluster> {
    let cluster = Cluster::start(name, &["fsync=off", "autovacuum_naptime=5s"])?;
    let mut admin = cluster.create_database(DATABASE)?;
    admin.batch_execute(&format!(
        "create role {ROLE};
         grant execute on all functions in schema public to {ROLE};
         grant usage on schema sync_ext to {ROLE};
         grant select on sync_ext.current_record, sync_ext.tombstone, sync_ext.conflict,
           sync_ext.workspace_status, sync_ext.device_status, sync_ext.counter to {ROLE};
         create schema app;
         grant usage on schema app to {ROLE};
         create table app.member (workspace_id text, user_id text, role text,
                                  primary key (workspace_id, user_id));
         create function app.role_of(u text, w text) returns text language sql stable
           security definer set search_path = pg_catalog, pg_temp
           as $$ select role from app.member where user_id = u and workspace_id = w $$;
         create function app.pushed_at(step bigint) returns void language sql security definer
           set search_path = pg_catalog, pg_temp
           as $$ update sync_ext.change_log
                    set created_at = timestamptz '2020-01-01Z' + step * interval '1 hour'
                  where created_at > now() - interval '1 hour';
                update sync_ext.workspace
                    set unread_since = timestamptz '2020-01-01Z' + step * interval '1 hour'
                  where unread_since > now() - interval '1 hour' $$"
    ))?;
    Ok(cluster)
}

/// Plays the history of a seed.
pub fn run(cluster: &Cluster, seed: u64, steps: usize) -> Result<Tally> {
    let elsewhere = seed % 4 == 3;
    let whose = if elsewhere { "the app's" } else { "here" };
    let said = format!("seed {seed}, {steps} steps, members {whose}");
    shorten::play(step::history(seed, steps), &said, |part| play(cluster, elsewhere, part))
}

fn play(cluster: &Cluster, elsewhere: bool, history: &[Step]) -> Result<Tally> {
    let mut world = World::new(cluster, elsewhere)?;
    for (number, step) in history.iter().enumerate() {
        world.play(step).with_context(|| format!("step {number}, {step:?}"))?;
    }
    world.end().context("after the last step")?;
    Ok(world.tally)
}
