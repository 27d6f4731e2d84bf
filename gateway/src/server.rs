//! The routes, and the life of the process.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::warn;

use crate::config::Config;
use crate::database::Database;
use crate::failure::Failure;
use crate::hub::Hub;
use crate::{calls, connections, listen, live};

pub struct Gateway {
    pub config: Arc<Config>,
    pub database: Database,
    pub hub: Arc<Hub>,
}

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(config: Config) -> Result<()> {
    let config = Arc::new(config);
    let hub = Arc::new(Hub::default());
    let database = Database::new(&config)?;
    let listen_database = config.listen_database()?;
    let gateway = Arc::new(Gateway { config: config.clone(), database, hub: hub.clone() });

    let address = &config.address;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot bind {address}"))?;
    println!("http://{}", listener.local_addr()?);
    tokio::spawn(listen::run(gateway.clone(), listen_database));

    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = Arc::new(Notify::new());
    let told = stopping.clone();
    // A task of its own, so that streams end at once, however busy accepting is.
    let stop = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        hub.close();
        told.notify_one();
    });
    tokio::select! {
        () = connections::serve(listener, routes(gateway), &config, stop) => {}
        () = async { stopping.notified().await; tokio::time::sleep(config.stop_timeout).await } => {
            warn!("stopped with calls under way");
        }
    }
    Ok(())
}

fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/workspaces/{id}/push", post(calls::push))
        .route("/workspaces/{id}/pull", post(calls::pull))
        .route("/workspaces/{id}/snapshot", post(calls::snapshot))
        .route("/workspaces/{id}/cursor", post(calls::cursor))
        .route("/workspaces/{id}/exchange", post(calls::exchange))
        .route("/workspaces/{id}/live", get(live::of_workspace))
        .route("/live", get(live::of_workspaces))
        .route("/health", get(health))
        .fallback(async || Failure::not_found())
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .with_state(gateway)
}

/// 503 while no notifications arrive; changes then reach streams late, but correctly.
async fn health(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let (listening, streams) = (gateway.hub.is_listening(), gateway.hub.streams());
    let status = if listening { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"listening": listening, "streams": streams}).to_string();
    (status, [(CONTENT_TYPE, "application/json")], body)
}
