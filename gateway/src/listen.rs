//! The one connection to a server that receives notifications of its commits.
//!
//! Only the workspace of a notification is read. Its `changes`, where
//! `sync_ext.notify` sends them, are not used: they leave out private records,
//! know nothing of a stream's user, tables and cursor, may be null, and any role
//! of the database can send a notification that looks like one.

use std::convert::Infallible;
use std::future::poll_fn;
use std::process;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};
use tracing::{info, warn};

use crate::server::Gateway;
use crate::servers::Server;

const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

/// A notification that only this gateway sends, to itself: it names no workspace.
struct Sign {
    payload: String,
    heard: Notify,
}

impl Sign {
    fn new() -> Sign {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("{}-{}", process::id(), time.as_nanos());
        let payload = json!({"gateway": id}).to_string();
        Sign { payload, heard: Notify::new() }
    }
}

/// Listens forever to the server of this number, on one connection after the other.
pub async fn run(gateway: Arc<Gateway>, number: usize) {
    let is_listening = &gateway.servers[number].is_listening;
    let mut back_off = BACK_OFF;
    loop {
        let Err(why) = listen(&gateway, number).await;
        if is_listening.swap(false, Ordering::Relaxed) {
            back_off = BACK_OFF;
        }
        warn!(reason = format!("{why:#}"), "not listening");
        sleep(back_off).await;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
}

/// Listens until the connection ends.
async fn listen(gateway: &Gateway, number: usize) -> Result<Infallible> {
    let patience = gateway.config.database_timeout;
    let database = &gateway.servers[number].listen;
    let tls = gateway.config.tls(database)?;
    let (client, connection) = timeout(patience, database.connect(tls)).await??;
    let sign = Sign::new();
    tokio::select! {
        ended = forward(connection, gateway, number, &sign) => ended,
        silent = keep_listening(&client, gateway, number, &sign) => silent,
    }
}

/// Drives the connection, and rings for each notification.
async fn forward(
    mut connection: Connection<Socket, impl AsyncRead + AsyncWrite + Unpin>,
    gateway: &Gateway,
    number: usize,
    sign: &Sign,
) -> Result<Infallible> {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        let AsyncMessage::Notification(notification) = message? else { continue };
        if notification.payload() == sign.payload {
            sign.heard.notify_one();
            continue;
        }
        let Ok(notice) = serde_json::from_str::<Value>(notification.payload()) else { continue };
        match notice.get("workspaceId") {
            Some(Value::String(workspace_id)) => {
                gateway.hub.ring(workspace_id, notice.get("serverVersion").and_then(Value::as_i64));
            }
            Some(Value::Null) => ring_all(gateway, number),
            _ => {}
        }
    }
    bail!("the connection was closed")
}

/// For the workspaces of that server.
fn ring_all(gateway: &Gateway, number: usize) {
    gateway.hub.ring_all(|workspace_id| gateway.servers.may_be_at(workspace_id, number));
}

/// Asks for an answer from time to time: nothing else would show that the server's
/// machine is gone.
async fn keep_listening(
    client: &Client,
    gateway: &Gateway,
    number: usize,
    sign: &Sign,
) -> Result<Infallible> {
    let (server, channel) = (&gateway.servers[number], &gateway.config.channel);
    let patience = gateway.config.database_timeout;
    let listen = format!("listen \"{}\"", channel.replace('"', "\"\""));
    timeout(patience, client.batch_execute(&listen)).await??;
    // No notification will come for what was pushed before.
    ring_all(gateway, number);
    timeout(patience, give(sign, channel, server))
        .await
        .context("the sign could not be given")??;
    timeout(patience, sign.heard.notified())
        .await
        .context("what is told in the database of the calls is not heard")?;
    server.is_listening.store(true, Ordering::Relaxed);
    info!(channel, "listening");
    loop {
        sleep(patience).await;
        timeout(patience, client.batch_execute(""))
            .await
            .context("the server does not answer")??;
    }
}

/// Sends the sign where pushes are made, and on another connection than the listening
/// one: LISTEN also succeeds in another database, and on a connection that a proxy
/// lends for one transaction, which might even receive its own notifications.
async fn give(sign: &Sign, channel: &String, server: &Server) -> Result<()> {
    let notify = "select pg_notify($1, $2)::text";
    let arguments = [channel, &sign.payload];
    let arguments = arguments.map(|text| (text as _, Type::TEXT));
    let given = server.database.call(None, notify, &arguments).await;
    given.map(drop).map_err(|failure| anyhow!(failure.to_json()))
}
