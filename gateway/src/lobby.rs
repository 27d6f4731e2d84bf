//! The places of open connections. One on which no whole request has arrived, because it
//! is idle or its client is slow, gives its place up when a new connection needs it, the
//! one that has waited longest first: however many requests are sent by halves, they keep
//! nobody out. One whose request is at work keeps its place.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, Request};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub struct Lobby {
    places: Arc<Semaphore>,
    max: usize,
    /// In the order in which they began to wait.
    waiting: Mutex<BTreeMap<u64, Arc<Place>>>,
    tickets: AtomicU64,
    /// Some connection has begun to wait.
    came: Notify,
    given_up: AtomicU64,
}

impl Lobby {
    pub fn new(max: usize) -> Arc<Lobby> {
        Arc::new(Lobby {
            places: Arc::new(Semaphore::new(max)),
            max,
            waiting: Mutex::default(),
            tickets: AtomicU64::default(),
            came: Notify::new(),
            given_up: AtomicU64::default(),
        })
    }

    pub fn open(&self) -> usize {
        self.max - self.places.available_permits()
    }

    /// How many connections were closed for the sake of new ones.
    pub fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                return Some(permit);
            }
            if self.give_one_up() {
                return self.places.clone().acquire_owned().await.ok();
            }
            tokio::select! {
                permit = self.places.clone().acquire_owned() => return permit.ok(),
                () = self.came.notified() => {}
            }
        }
    }

    fn give_one_up(&self) -> bool {
        let oldest = self.waiting().pop_first();
        if let Some((_, place)) = &oldest {
            self.given_up.fetch_add(1, Ordering::Relaxed);
            place.gone.notify_one();
        }
        oldest.is_some()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Place>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place.
pub struct Place {
    lobby: Arc<Lobby>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// While it waits for a request: its key in the lobby.
    ticket: AtomicU64,
    gone: Notify,
}

impl Place {
    /// Waits until there is one.
    pub async fn new(lobby: &Arc<Lobby>) -> Arc<Place> {
        let permit = Mutex::new(lobby.permit().await);
        let (lobby, ticket) = (lobby.clone(), AtomicU64::default());
        let place = Arc::new(Place { lobby, permit, ticket, gone: Notify::new() });
        place.wait();
        place
    }

    /// The connection waits for its next request.
    fn wait(self: &Arc<Place>) {
        let ticket = self.lobby.tickets.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.lobby.waiting();
        self.ticket.store(ticket, Ordering::Relaxed);
        waiting.insert(ticket, self.clone());
        self.lobby.came.notify_one();
    }

    /// A whole request has arrived.
    pub fn work(&self) {
        self.lobby.waiting().remove(&self.ticket.load(Ordering::Relaxed));
    }

    /// Until a new connection needs the place.
    pub async fn given_up(&self) {
        self.gone.notified().await;
    }

    /// The connection has ended.
    pub fn close(&self) {
        self.work();
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Keeps the place while a request is at work: from its end, or that of its body, to the
/// end of its answer.
pub async fn keep(
    Extension(place): Extension<Arc<Place>>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        place.work();
    }
    let response = next.run(request).await;
    place.work();
    response.map(|body| Body::new(Answer { body, place }))
}

/// The body of an answer; with its end the connection waits again.
struct Answer {
    body: Body,
    place: Arc<Place>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.wait();
    }
}
