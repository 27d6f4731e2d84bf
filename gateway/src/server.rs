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
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::warn;

use crate::config::Config;
use crate::database::Database;
use crate::failure::Failure;
use crate::hub::Hub;
use crate::lobby::{self, Lobby};
use crate::metrics::Metrics;
use crate::pushes::Pushes;
use crate::token::Tokens;
use crate::{admin, calls, connections, listen, live, metrics, page};

/// How long a browser remembers what a page of another site may do.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3600);

pub struct Gateway {
    pub config: Arc<Config>,
    pub database: Arc<Database>,
    pub pushes: Arc<Pushes>,
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
    let database = Arc::new(Database::new(&config)?);
    let pushes = Arc::new(Pushes::new(&config, database.clone()));
    let listen_database = config.listen_database()?;
    let lobby = Lobby::new(config.max_connections);
    let gateway = Arc::new(Gateway {
        config: config.clone(),
        database,
        pushes,
        tokens: Tokens::new(&config.tokens)?,
        hub: hub.clone(),
        lobby: lobby.clone(),
        metrics: Metrics::default(),
    });

    let address = &config.address;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot bind {address}"))?;
    println!("http://{}", listener.local_addr()?);
    tokio::spawn(listen::run(gateway.clone(), listen_database));
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

/// 503 while no notifications arrive; changes then reach streams late, but correctly.
async fn health(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let (listening, streams) = (gateway.hub.is_listening(), gateway.hub.streams());
    let status = if listening { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let waiting = gateway.pushes.waiting();
    let body = json!({"listening": listening, "streams": streams, "waiting": waiting}).to_string();
    (status, [(CONTENT_TYPE, "application/json")], body)
}
