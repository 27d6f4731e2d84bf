//! The one connection that hears of commits.
//!
//! Of a notification only the workspace is read. Its `changes`, where
//! `sync_ext.notify` sends them, are not used: they leave out private records,
//! know nothing of a stream's user, tables and cursor, may be null, and any role
//! of the database can send a notification that looks like one.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};

use crate::config::Config;
use crate::hub::Hub;

const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice {
    workspace_id: String,
}

/// Listens for ever, on one connection after the other.
pub async fn run(config: Arc<Config>, hub: Arc<Hub>) {
    let mut back_off = BACK_OFF;
    loop {
        let Err(why) = listen(&config, &hub).await;
        if hub.is_listening.swap(false, Ordering::Relaxed) {
            back_off = BACK_OFF;
        }
        eprintln!("not listening: {why:#}");
        sleep(back_off).await;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
}

/// Listens until the connection ends.
async fn listen(config: &Config, hub: &Hub) -> Result<Infallible> {
    let (client, connection) =
        timeout(config.database_timeout, config.listen_database.connect(NoTls)).await??;
    tokio::select! {
        ended = forward(connection, hub) => ended,
        silent = keep_listening(&client, config, hub) => silent,
    }
}

/// Drives the connection, and rings for each notification.
async fn forward(mut connection: Connection<Socket, NoTlsStream>, hub: &Hub) -> Result<Infallible> {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notification(notification) = message?
            && let Ok(notice) = serde_json::from_str::<Notice>(notification.payload())
        {
            hub.ring(&notice.workspace_id);
        }
    }
    bail!("the connection was closed")
}

/// Asks now and then for an answer: nothing else would tell that the server's
/// machine has gone.
async fn keep_listening(client: &Client, config: &Config, hub: &Hub) -> Result<Infallible> {
    let (channel, patience) = (&config.channel, config.database_timeout);
    let listen = format!("listen \"{}\"", channel.replace('"', "\"\""));
    timeout(patience, client.batch_execute(&listen)).await??;
    // What was pushed while nobody listened, nobody will tell of.
    hub.is_listening.store(true, Ordering::Relaxed);
    hub.ring_all();
    eprintln!("listening on channel {channel}");
    loop {
        sleep(patience).await;
        timeout(patience, client.batch_execute(""))
            .await
            .context("the server does not answer")??;
    }
}
