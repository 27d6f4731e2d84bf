//! The routes, and the life of the process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{Instrument, warn};

use crate::config::Config;
use crate::failure::Failure;
use crate::hub::Hub;
use crate::lobby::{self, Lobby};
use crate::metrics::Metrics;
use crate::servers::{Server, Servers};
use crate::token::Tokens;
use crate::{admin, calls, connections, listen, live, metrics, page};

/// How long a browser remembers what a page of another site may do.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3600);

pub struct Gateway {
    pub config: Arc<Config>,
    pub servers: Servers,
    /// Where tokens name the users.
    pub tokens: Option<Tokens>,
    pub hub: Arc<Hub>,
    pub lobby: Arc<Lobby>,
    pub metrics: Metrics,
}

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(config: Config) -> Result<()> {
    let config = Arc::new(config);
    let hub = Arc::new(Hub::default());
    let lobby = Lobby::new(config.max_connections);
    let gateway = Arc::new(Gateway {
        config: config.clone(),
        servers: Servers::new(&config).await?,
        tokens: Tokens::new(&config.tokens)?,
        hub: hub.clone(),
        lobby: lobby.clone(),
        metrics: Metrics::default(),
    });

    let address = &config.address;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot bind {address}"))?;
    println!("http://{}", listener.local_addr()?);
    for number in 0..gateway.servers.len() {
        let span = gateway.servers[number].database.span.clone();
        tokio::spawn(listen::run(gateway.clone(), number).instrument(span));
    }
    tokio::spawn(keep_map(gateway.clone(), signal(SignalKind::hangup())?));
    let kept = gateway.clone();
    tokio::spawn(async move {
        let keys = async {
            if let Some(tokens) = &kept.tokens {
                tokens.keep_keys().await;
            }
        };
        tokio::join!(keys, kept.metrics.keep_history());
    });

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
        () = connections::serve(listener, routes(gateway), lobby, &config, stop) => {}
        () = async { stopping.notified().await; tokio::time::sleep(config.stop_timeout).await } => {
            warn!("stopped with calls under way");
        }
    }
    Ok(())
}

fn routes(gateway: Arc<Gateway>) -> Router {
    let origins = gateway.config.allow_origin.clone();
    let routes = Router::new()
        .route("/workspaces/{id}/push", post(calls::push))
        .route("/workspaces/{id}/pull", post(calls::pull))
        .route("/workspaces/{id}/snapshot", post(calls::snapshot))
        .route("/workspaces/{id}/cursor", post(calls::cursor))
        .route("/workspaces/{id}/exchange", post(calls::exchange))
        .route("/workspaces/{id}/live", get(live::of_workspace))
        .route("/live", get(live::of_workspaces))
        .route("/workspaces", get(admin::list))
        .route("/workspaces/{id}", put(admin::create).delete(admin::drop))
        .route("/workspaces/{id}/members", get(admin::members))
        .route(
            "/workspaces/{id}/members/{user}",
            put(admin::set_member).delete(admin::remove_member),
        )
        .route("/workspaces/{id}/status", get(admin::status))
        .route("/workspaces/{id}/explain", get(admin::explain))
        .route("/status", get(page::show))
        .route("/metrics", get(metrics::show))
        .route("/health", get(health))
        .fallback(async || Failure::not_found())
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .layer(from_fn_with_state(gateway.clone(), metrics::measure))
        .layer(from_fn(lobby::keep))
        .with_state(gateway);
    match cors(&origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// For pages of other sites. Those of the listed origins may use the cookies of their
/// visitors; if any origin may call, none may use them.
fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let is_any = origins.iter().any(|origin| origin == "*");
    let origins =
        if is_any { AllowOrigin::any() } else { AllowOrigin::list(origins.iter().cloned()) };
    let cors = CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(!is_any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("last-event-id")])
        .expose_headers([RETRY_AFTER])
        .max_age(PREFLIGHT_AGE);
    Some(cors)
}

/// Streams of workspaces that are on another server than before go on there.
async fn keep_map(gateway: Arc<Gateway>, mut hang_up: Signal) {
    let Some(watch) = &gateway.servers.map else {
        // Without a map there is nothing to read, and nothing to stop for.
        while hang_up.recv().await.is_some() {}
        return;
    };
    watch
        .keep(hang_up, |before, map| {
            let server_before = |id: &str| before.map(|before| before.server_of(id));
            gateway.hub.ring_all(|id| server_before(id) != Some(map.server_of(id)));
        })
        .await;
}

/// 503 while no notifications arrive; changes then reach streams late, but correctly. Of
/// several servers one is enough: otherwise the failure of one would be that of all.
async fn health(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let servers = &gateway.servers;
    let has_map = servers.map.as_ref().is_none_or(|watch| watch.map().is_some());
    let is_well = has_map && servers.iter().any(Server::is_listening);
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({
        "listening": servers.iter().all(Server::is_listening),
        "streams": gateway.hub.streams(),
        "waiting": servers.iter().map(|server| server.pushes.waiting()).sum::<usize>(),
    });
    let named = servers.iter().filter_map(|server| {
        Some(json!({
            "name": server.name.as_ref()?,
            "listening": server.is_listening(),
            "standbys": server.standbys.len(),
            "standbysUp": server.standbys_up(),
        }))
    });
    let named: Vec<Value> = named.collect();
    if !named.is_empty() {
        body["map"] = has_map.into();
        body["servers"] = named.into();
    }
    (status, [(CONTENT_TYPE, "application/json")], body.to_string())
}
