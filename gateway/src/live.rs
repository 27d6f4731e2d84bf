//! A stream of changes as server-sent events. Each is the reply of a pull, with
//! the cursor that it leads to as its id: a client that resumes from the last id sees
//! everything once.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::RawQuery;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::calls::{Call, Pull};
use crate::failure::Failure;
use crate::hub::Subscription;

/// After this, clients connect again.
const RETRY: Duration = Duration::from_secs(1);
const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

pub async fn live(
    call: Call,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let pull = request(query.as_deref().unwrap_or(""), &headers)?;
    let heartbeat = call.gateway.config.heartbeat;
    let ends_at = Instant::now() + call.gateway.config.stream_age;
    // Subscribe first, then pull: what is pushed in between rings the bell.
    let bell = call.gateway.hub.subscribe(&call.workspace_id).ok_or_else(Failure::stopping)?;
    let mut live = Live { call, pull, bell, page: None, has_more: true, ends_at };
    // Before the answer begins, so that a refusal has its status. A failure that may
    // pass is no refusal: an EventSource gives up for good on any status but 200.
    match live.pull().await {
        Err(failure) if failure.is_passing() => {}
        answer => live.page = Some(answer?),
    }

    let hello = stream::once(async { Event::default().retry(RETRY) });
    let events = hello.chain(live.events()).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(heartbeat).text("heartbeat");
    // Without it, nginx would buffer events before it passes them on.
    let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((unbuffered, Sse::new(events).keep_alive(keep_alive)).into_response())
}

/// `cursor`, `tables` (once for each), `latest`, `pageLimit` and `proof`, and
/// `Last-Event-ID`, which takes precedence over `cursor`: a browser that reconnects by
/// itself sends it with the URL of the first time, and so with a proof older than
/// its cursor. That proof is passed on. It misses a restore to a version between the
/// two, as no proof would; it detects one to below itself, which no proof would miss
/// once versions were used again. Once GC has purged its entry, it causes a snapshot
/// without need: that costs a download, whereas a mixed history would stay wrong.
fn request(query: &str, headers: &HeaderMap) -> Result<Pull, Failure> {
    let mut pull = Pull { cursor: Some(0), ..Pull::default() };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "cursor" => pull.cursor = Some(parsed(&name, &value)?),
            "tables" => {
                pull.tables.get_or_insert_default().push(Some(value.into_owned()));
            }
            "latest" => pull.latest = Some(parsed(&name, &value)?),
            "pageLimit" => pull.page_limit = Some(parsed(&name, &value)?),
            "proof" => pull.proof = Some(value.into_owned()),
            _ => return Err(Failure::request(format!("There is no parameter {name}."))),
        }
    }
    if let Some(last) = headers.get("last-event-id") {
        pull.cursor = Some(parsed("Last-Event-ID", last.to_str().unwrap_or(""))?);
    }
    Ok(pull)
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| Failure::request(format!("{name} is invalid.")))
}

struct Live {
    call: Call,
    pull: Pull,
    bell: Subscription,
    /// Pulled, but not sent yet.
    page: Option<Page>,
    /// Whether there is more to pull; true until the first pull.
    has_more: bool,
    /// The proxy in front authenticates requests, not streams: a stream that went on
    /// forever would outlive the rights of its user.
    ends_at: Instant,
}

struct Page {
    reply: String,
    end: PageEnd,
}

/// The parts of a pull's reply that the stream uses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageEnd {
    next_cursor: i64,
    has_more: bool,
    requires_snapshot: bool,
    proof: Option<String>,
}

impl Live {
    fn events(self) -> impl Stream<Item = Event> {
        stream::unfold(Some(self), async |live| live?.next().await)
    }

    /// The next event, and the stream after it, if it goes on.
    async fn next(mut self) -> Option<(Event, Option<Live>)> {
        loop {
            let page = match self.page.take() {
                Some(page) => page,
                None => match self.next_page().await? {
                    Ok(page) => page,
                    Err(failure) => return Some((event("refused", &failure.to_json()), None)),
                },
            };
            let Page { reply, end } = page;
            if end.requires_snapshot {
                // Without an id: the cursor has not moved.
                return Some((event("snapshot", &reply), None));
            }
            let moved = Some(end.next_cursor) != self.pull.cursor;
            self.pull.cursor = Some(end.next_cursor);
            self.pull.proof = end.proof;
            self.has_more = end.has_more;
            if moved {
                let event = event("changes", &reply).id(end.next_cursor.to_string());
                return Some((event, Some(self)));
            }
        }
    }

    /// Waits for the next page, through all failures that may pass; `None` when
    /// the stream is over.
    async fn next_page(&mut self) -> Option<Result<Page, Failure>> {
        let goes_on = if self.has_more { !self.is_over() } else { self.rung().await };
        if !goes_on {
            return None;
        }
        let mut back_off = BACK_OFF;
        loop {
            match self.pull().await {
                Err(failure) if failure.is_passing() => {}
                answer => return Some(answer),
            }
            tokio::select! {
                rung = self.rung() => if !rung { return None },
                () = sleep(back_off) => back_off = (back_off * 2).min(LONGEST_BACK_OFF),
            }
        }
    }

    /// Waits until there may be something new; false when the stream is over.
    async fn rung(&mut self) -> bool {
        tokio::select! {
            // A bell that rings all the time must not postpone the end.
            biased;
            () = sleep_until(self.ends_at) => false,
            rung = self.bell.rung() => rung,
        }
    }

    /// The gateway stops, or the stream's user must be authenticated again.
    fn is_over(&self) -> bool {
        self.bell.is_closed() || Instant::now() >= self.ends_at
    }

    async fn pull(&self) -> Result<Page, Failure> {
        let reply = self.call.pull(&self.pull).await?;
        let end =
            serde_json::from_str(&reply).map_err(|error| Failure::internal("XX000", error))?;
        Ok(Page { reply, end })
    }
}

/// A CR of JSON is white space, and ends a line of a stream as LF does, which not
/// all clients know.
fn event(name: &str, json: &str) -> Event {
    Event::default().event(name).data(json.replace('\r', "\n"))
}
