//! The routes, and the life of the process.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_io_timeout::TimeoutStream;

use crate::config::Config;
use crate::database::Database;
use crate::failure::Failure;
use crate::hub::Hub;
use crate::{calls, listen, live};

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
    let gateway = Arc::new(Gateway { config: config.clone(), database, hub: hub.clone() });

    let address = &config.address;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot bind {address}"))?;
    println!("http://{}", listener.local_addr()?);
    tokio::spawn(listen::run(gateway.clone()));

    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = Arc::new(Notify::new());
    let told = stopping.clone();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        hub.close();
        told.notify_one();
    };
    let listener = Connections { listener, write_timeout: config.write_timeout };
    let serve = axum::serve(listener, routes(gateway)).with_graceful_shutdown(stop);
    tokio::select! {
        served = async { serve.await } => served?,
        () = async { stopping.notified().await; tokio::time::sleep(config.stop_timeout).await } => {
            eprintln!("stopped with calls under way");
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
        .route("/workspaces/{id}/live", get(live::live))
        .route("/health", get(health))
        .fallback(async || Failure::not_found())
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .layer(DefaultBodyLimit::max(gateway.config.max_body_bytes))
        .with_state(gateway)
}

/// 503 while changes are not heard of; streams then arrive late, not wrong.
async fn health(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let (listening, streams) = (gateway.hub.is_listening(), gateway.hub.streams());
    let status = if listening { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = format!("{{\"listening\":{listening},\"streams\":{streams}}}");
    (status, [(CONTENT_TYPE, "application/json")], body)
}

/// Accepts connections that end when nothing can be written to them for a time:
/// a client that does not read would else hold its stream for ever. What it has
/// not read it gets when it resumes.
struct Connections {
    listener: TcpListener,
    write_timeout: Duration,
}

impl Listener for Connections {
    type Io = Pin<Box<TimeoutStream<TcpStream>>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (tcp, address) = Listener::accept(&mut self.listener).await;
        // An event is to leave at once.
        let _ = tcp.set_nodelay(true);
        let mut stream = TimeoutStream::new(tcp);
        stream.set_write_timeout(Some(self.write_timeout));
        (Box::pin(stream), address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
