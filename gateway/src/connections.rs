//! Connections: how many are open, and how long a client may take to send a request or
//! to read. Otherwise slow clients would use up the files of the process, and a process
//! without files accepts nobody and loses its database.

use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;

use crate::config::Config;
use crate::lobby::{Lobby, Place};

/// Serves until `stop`, then finishes the requests that have begun.
pub async fn serve(
    mut listener: TcpListener,
    routes: Router,
    lobby: Arc<Lobby>,
    config: &Config,
    stop: impl Future,
) {
    let mut http = http1::Builder::new();
    // Runs from the last answer on, so that it closes idle connections too.
    http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout);
    let routes = TowerToHyperService::new(routes);
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        // axum handles accept errors: it waits a second when files run out.
        let accepted = async {
            let (tcp, _) = Listener::accept(&mut listener).await;
            (tcp, Place::new(&lobby).await)
        };
        let (tcp, place) = tokio::select! {
            _ = &mut stop => break,
            accepted = accepted => accepted,
        };
        let (routes, here) = (routes.clone(), place.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(here.clone());
            routes.call(request)
        });
        let io = TokioIo::new(with_write_timeout(tcp, config));
        let connection = connections.watch(http.serve_connection(io, service));
        tokio::spawn(async move {
            // Errors here are the client's: a timeout, a reset, invalid HTTP.
            tokio::select! {
                _ = connection => {}
                () = place.given_up() => {}
            }
            place.close();
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Fails when nothing can be written for a time: a client that does not read would
/// otherwise hold its stream for ever. It gets the rest when it resumes.
fn with_write_timeout(tcp: TcpStream, config: &Config) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Events must leave at once.
    let _ = tcp.set_nodelay(true);
    let mut stream = TimeoutStream::new(tcp);
    stream.set_write_timeout(Some(config.write_timeout));
    Box::pin(stream)
}
