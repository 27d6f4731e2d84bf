//! sync_ext over HTTP: calls pass through, changes arrive by server-sent events.
//!
//! * [`config`]: options, from the command line and the environment
//! * [`addresses`]: where the servers are
//! * [`server`]: the routes, and the life of the process
//! * [`connections`]: their number and their timeouts
//! * [`lobby`]: which connection gives its place up
//! * [`tls`]: to the database
//! * [`body`]: the body of a request, within its limits
//! * [`caller`]: who a request speaks for
//! * [`token`]: tokens that name users (JWT)
//! * [`keys`]: the keys that these are signed with
//! * [`calls`]: push, pull, snapshot, cursor, exchange
//! * [`admin`]: workspaces, members, status
//! * [`live`]: streams of changes
//! * [`follow`]: pulls for a stream where something is new
//! * [`pushes`]: which pushes wait for which workspace
//! * [`group`]: pushes of one workspace in one transaction
//! * [`hub`]: which streams wait for which workspace
//! * [`servers`]: which server a call goes to
//! * [`map`], [`map_watch`]: which server has which workspace, now
//! * [`standby`]: reads that may be late
//! * [`merge`]: replies of several servers as one
//! * [`listen`]: the one connection to a server that receives notifications of commits
//! * [`database`]: a call in a transaction of its own
//! * [`metrics`]: what it does, in numbers
//! * [`page`], [`chart`]: the status page
//! * [`failure`]: SQLSTATEs as HTTP answers

mod addresses;
mod admin;
mod body;
mod caller;
mod calls;
mod chart;
mod config;
mod connections;
mod database;
mod failure;
mod follow;
mod group;
mod hub;
mod keys;
mod listen;
mod live;
mod lobby;
mod map;
mod map_watch;
mod merge;
mod metrics;
mod page;
mod pushes;
mod server;
mod servers;
mod standby;
mod tls;
mod token;

use clap::Parser;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config = config::Config::parse();
    // Of this crate alone: what libraries log may hold payloads or credentials.
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), config.log_level);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(log).with(ours).init();
    config.fit_file_limit()?;
    server::run(config).await
}
