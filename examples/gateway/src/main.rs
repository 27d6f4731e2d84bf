//! sync_ext over HTTP: calls pass through, changes arrive by server-sent events.
//!
//! * [`config`]: settings, from the environment
//! * [`server`]: the routes, and the life of the process
//! * [`connections`]: their number and their timeouts
//! * [`body`]: the body of a request, in bounds
//! * [`caller`]: who a request speaks for
//! * [`calls`]: push, pull, snapshot, cursor, exchange
//! * [`live`]: a stream of changes
//! * [`hub`]: which streams wait for which workspace
//! * [`listen`]: the one connection that hears of commits
//! * [`database`]: a call in a transaction of its own
//! * [`failure`]: SQLSTATEs as HTTP answers

mod body;
mod caller;
mod calls;
mod config;
mod connections;
mod database;
mod failure;
mod hub;
mod listen;
mod live;
mod server;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    server::run(config::Config::from_environment()?).await
}
