//! The one connection that hears of commits.
//!
//! Of a notification only the workspace is read. Its `changes`, where
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
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};

use crate::hub::Hub;
use crate::server::Gateway;

const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice {
    workspace_id: String,
}

/// What a gateway tells itself, and nobody else does: it names no workspace.
struct Sign {
    payload: String,
    heard: Notify,
}

impl Sign {
    fn new() -> Sign {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let payload = format!("{{\"gateway\":\"{}-{}\"}}", process::id(), time.as_nanos());
        Sign { payload, heard: Notify::new() }
    }
}

/// Listens for ever, on one connection after the other.
pub async fn run(gateway: Arc<Gateway>) {
    let mut back_off = BACK_OFF;
    loop {
        let Err(why) = listen(&gateway).await;
        if gateway.hub.is_listening.swap(false, Ordering::Relaxed) {
            back_off = BACK_OFF;
        }
        eprintln!("not listening: {why:#}");
        sleep(back_off).await;
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
}

/// Listens until the connection ends.
async fn listen(gateway: &Gateway) -> Result<Infallible> {
    let config = &gateway.config;
    let (client, connection) =
        timeout(config.database_timeout, config.listen_database.connect(NoTls)).await??;
    let sign = Sign::new();
    tokio::select! {
        ended = forward(connection, &gateway.hub, &sign) => ended,
        silent = keep_listening(&client, gateway, &sign) => silent,
    }
}

/// Drives the connection, and rings for each notification.
async fn forward(
    mut connection: Connection<Socket, NoTlsStream>,
    hub: &Hub,
    sign: &Sign,
) -> Result<Infallible> {
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        let AsyncMessage::Notification(notification) = message? else { continue };
        if notification.payload() == sign.payload {
            sign.heard.notify_one();
        } else if let Ok(notice) = serde_json::from_str::<Notice>(notification.payload()) {
            hub.ring(&notice.workspace_id);
        }
    }
    bail!("the connection was closed")
}

/// Asks now and then for an answer: nothing else would tell that the server's
/// machine has gone.
async fn keep_listening(client: &Client, gateway: &Gateway, sign: &Sign) -> Result<Infallible> {
    let (hub, channel) = (&gateway.hub, &gateway.config.channel);
    let patience = gateway.config.database_timeout;
    let listen = format!("listen \"{}\"", channel.replace('"', "\"\""));
    timeout(patience, client.batch_execute(&listen)).await??;
    // What was pushed while nobody listened, nobody will tell of.
    hub.ring_all();
    timeout(patience, give(sign, gateway)).await.context("the sign could not be given")??;
    timeout(patience, sign.heard.notified())
        .await
        .context("what is told in the database of the calls is not heard")?;
    hub.is_listening.store(true, Ordering::Relaxed);
    eprintln!("listening on channel {channel}");
    loop {
        sleep(patience).await;
        timeout(patience, client.batch_execute(""))
            .await
            .context("the server does not answer")??;
    }
}

/// Where pushes are made, and by another connection than the one that is to hear
/// it: LISTEN succeeds, too, in another database, and on a connection that a proxy
/// lends for one transaction, which might even hear itself.
async fn give(sign: &Sign, gateway: &Gateway) -> Result<()> {
    let notify = "select pg_notify($1, $2)::text";
    let arguments = [&gateway.config.channel, &sign.payload];
    let arguments = arguments.map(|text| (text as _, Type::TEXT));
    let given = gateway.database.call(None, notify, &arguments).await;
    given.map(drop).map_err(|failure| anyhow!(failure.to_json()))
}
