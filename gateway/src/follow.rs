//! Follows workspaces: pulls where something may be new, one workspace after the other, so
//! that a stream holds one page and uses one connection to the database at most.

use std::time::Duration;

use axum::response::sse::Event;
use futures_util::stream::{self, Stream};
use tokio::time::{Instant, sleep_until};

use crate::caller::Caller;
use crate::calls::{self, Call, Pull};
use crate::failure::Failure;
use crate::hub::{Rung, Subscription};

const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);

pub struct Follower {
    followed: Vec<Followed>,
    /// The bell of each, by the same number.
    bells: Subscription,
    /// Whose turn it is: a busy workspace must not keep the others waiting.
    turn: usize,
    /// Whether events name their workspace.
    is_several: bool,
    /// Authentication is of requests, not of streams: a stream that went on forever would
    /// outlive the rights of its user.
    ends_at: Instant,
}

/// A workspace that is followed.
pub struct Followed {
    call: Call,
    pull: Pull,
    /// Pulled, but not sent yet.
    page: Option<Page>,
    /// Whether there may be more to pull; true until the first pull.
    has_more: bool,
    /// Up to this version, at least; to the last one while nobody knows which that is.
    through: i64,
    /// What has rung its bell.
    rung: Rung,
    /// After failures that may pass: when to try again, unless its bell rings before.
    retry_at: Option<Instant>,
    back_off: Duration,
}

struct Page {
    reply: String,
    end: calls::Page,
}

impl Followed {
    pub fn new(call: Call, pull: Pull) -> Followed {
        Followed {
            call,
            pull,
            page: None,
            has_more: true,
            // Hints of earlier pushes did not come here.
            through: i64::MAX,
            rung: Rung::default(),
            retry_at: None,
            back_off: BACK_OFF,
        }
    }

    fn ring(&mut self, rung: Rung) {
        let is_named = rung.unnamed == self.rung.unnamed;
        self.through = if is_named { self.through.max(rung.head) } else { i64::MAX };
        self.rung = rung;
        (self.has_more, self.retry_at) = (true, None);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.has_more && self.retry_at.is_none_or(|at| at <= now)
    }

    /// `None` after a failure that may pass, which is no refusal: an EventSource gives up
    /// for good on any status but 200.
    async fn pull(&mut self) -> Result<Option<Page>, Failure> {
        match self.try_pull().await {
            Err(failure) if failure.is_passing() => {
                self.retry_at = Some(Instant::now() + self.back_off);
                self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
                Ok(None)
            }
            answer => {
                let page = answer?;
                self.has_more = page.end.has_more;
                if !self.has_more {
                    self.through = 0;
                }
                (self.retry_at, self.back_off) = (None, BACK_OFF);
                Ok(Some(page))
            }
        }
    }

    async fn try_pull(&self) -> Result<Page, Failure> {
        let Followed { call, pull, through, .. } = self;
        let servers = &call.caller.gateway.servers;
        let server = servers.of(&call.workspace_id)?;
        let answer = call.pull_through(server, pull, *through).await;
        // The others of the stream do not wait until it is found.
        servers.look_again(server, &answer);
        let reply = answer?;
        let end = calls::Page::parse(&reply).map_err(|error| Failure::internal("XX000", error))?;
        Ok(Page { reply, end })
    }
}

impl Follower {
    pub fn new(
        caller: &Caller,
        followed: Vec<Followed>,
        is_several: bool,
    ) -> Result<Follower, Failure> {
        let of_age = Instant::now() + caller.gateway.config.stream_age;
        let ends_at = caller.until.map_or(of_age, |until| of_age.min(until));
        // Subscribe first, then pull: what is pushed in between rings the bell.
        let ids = followed.iter().map(|followed| followed.call.workspace_id.as_str());
        let bells = caller.gateway.hub.subscribe(ids).ok_or_else(Failure::stopping)?;
        Ok(Follower { followed, bells, turn: 0, is_several, ends_at })
    }

    pub async fn pull_first(&mut self) -> Result<(), Failure> {
        for followed in &mut self.followed {
            followed.page = followed.pull().await?;
        }
        Ok(())
    }

    pub fn events(self) -> impl Stream<Item = Event> {
        stream::unfold(Some(self), async |follower| follower?.next().await)
    }

    /// The next event, and the follower after it, if it goes on.
    async fn next(mut self) -> Option<(Event, Option<Follower>)> {
        loop {
            let number = self.due().await?;
            let followed = &mut self.followed[number];
            let page = match followed.page.take() {
                Some(page) => page,
                None => match followed.pull().await {
                    Ok(Some(page)) => page,
                    Ok(None) => continue,
                    Err(failure) => {
                        return Some(self.last(number, "refused", &failure.to_json()));
                    }
                },
            };
            let Page { reply, end } = page;
            if end.requires_snapshot {
                return Some(self.last(number, "snapshot", &reply));
            }
            let moved = Some(end.next_cursor) != followed.pull.cursor;
            followed.pull.cursor = Some(end.next_cursor);
            followed.pull.proof = end.proof;
            if moved {
                let event = self.event(number, "changes", &reply).id(self.id());
                return Some((event, Some(self)));
            }
        }
    }

    /// The last event of a workspace. Without an id: the cursor has not moved.
    fn last(mut self, number: usize, name: &str, json: &str) -> (Event, Option<Follower>) {
        let event = self.event(number, name, json);
        self.followed.remove(number);
        self.bells.leave(number);
        let goes_on = !self.followed.is_empty();
        (event, goes_on.then_some(self))
    }

    /// Waits until one has something to send or to pull; `None` when the stream is over.
    async fn due(&mut self) -> Option<usize> {
        if let Some(number) = self.followed.iter().position(|followed| followed.page.is_some()) {
            return Some(number);
        }
        loop {
            if self.is_over() {
                return None;
            }
            for (number, followed) in self.followed.iter_mut().enumerate() {
                if self.bells.hear(number) {
                    followed.ring(self.bells.rings(number));
                }
            }
            let (now, count) = (Instant::now(), self.followed.len());
            let in_turn = (self.turn..self.turn + count).map(|number| number % count);
            if let Some(number) = in_turn.into_iter().find(|&n| self.followed[n].is_due(now)) {
                self.turn = number + 1;
                return Some(number);
            }
            let retries = self.followed.iter().filter_map(|followed| followed.retry_at);
            let wake_at = retries.chain([self.ends_at]).min().unwrap_or(now);
            tokio::select! {
                () = sleep_until(wake_at) => {}
                rung = self.bells.rung() => {
                    let number = rung?;
                    self.followed[number].ring(self.bells.rings(number));
                }
            }
        }
    }

    /// The gateway stops, or the stream's user must be authenticated again.
    fn is_over(&self) -> bool {
        self.followed.is_empty() || self.bells.is_closed() || Instant::now() >= self.ends_at
    }

    /// The cursors of all: where the stream goes on.
    fn id(&self) -> String {
        let cursors = self.followed.iter().map(|followed| {
            (&followed.call.workspace_id, followed.pull.cursor.unwrap_or(0).to_string())
        });
        if self.is_several {
            form_urlencoded::Serializer::new(String::new()).extend_pairs(cursors).finish()
        } else {
            cursors.map(|(_, cursor)| cursor).collect()
        }
    }

    /// A CR of JSON is white space, and ends a line of a stream as LF does, which not
    /// all clients know.
    fn event(&self, number: usize, name: &str, json: &str) -> Event {
        let mut json = json.replace('\r', "\n");
        if self.is_several {
            let id = serde_json::json!(self.followed[number].call.workspace_id);
            // After the brace: the reply stays as it is, byte for byte.
            json.insert_str(1, &format!("\"workspaceId\":{id},"));
        }
        Event::default().event(name).data(json)
    }
}
