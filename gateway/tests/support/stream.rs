//! A client of server-sent events.

use std::io::{BufRead, BufReader};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use serde_json::Value;
use sync_ext_harness::batch::versions;
use ureq::Body;
use ureq::http::Response;

use super::process::{Answer, Door, PATIENCE, agent};

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The versions of an event of changes.
    pub fn versions(&self) -> Vec<i64> {
        assert_eq!(self.name, "changes", "{self:?}");
        versions(&self.data, "changes")
    }

    pub fn cursor(&self) -> i64 {
        self.id.as_deref().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// What a stream says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Event(Event),
    Comment(String),
    /// It ended as a whole reply does, or was broken off.
    End {
        whole: bool,
    },
}

/// A stream, read by a thread of its own; broken off when dropped.
pub struct Live {
    said: Receiver<(Said, Instant)>,
}

impl Live {
    pub fn open(gateway: &Door, path: &str, user: Option<&str>) -> Live {
        Live::try_open(gateway, path, user, None).unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// Opens it with the id of the last event seen.
    pub fn resume(gateway: &Door, path: &str, user: Option<&str>, last: &str) -> Live {
        Live::try_open(gateway, path, user, Some(last)).unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// The same, or the answer instead of a stream; none if there is none.
    pub fn try_open(
        gateway: &Door,
        path: &str,
        user: Option<&str>,
        last: Option<&str>,
    ) -> Result<Live, Option<Answer>> {
        let mut request = agent().get(format!("{}{path}", gateway.url));
        for (name, value) in [("x-user-id", user), ("last-event-id", last)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let mut response = request.call().map_err(|_| None)?;
        if response.status() != 200 {
            let status = response.status().as_u16();
            let body = response.body_mut().read_to_string().map_err(|_| None)?;
            return Err(Some(Answer { status, body }));
        }
        Ok(Live::of(response))
    }

    pub fn of(response: Response<Body>) -> Live {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let reader = BufReader::new(response.into_body().into_reader());
        let (sender, said) = channel();
        // Nobody reads on when the receiver is gone; the connection is closed with the reader.
        thread::spawn(move || read(reader, |said| sender.send((said, Instant::now())).is_ok()));
        Live { said }
    }

    pub fn said(&self) -> Said {
        self.said_before(Instant::now() + PATIENCE).0
    }

    /// With the time at which it arrived.
    fn said_before(&self, deadline: Instant) -> (Said, Instant) {
        match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => panic!("it is not said within {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("it has ended"),
        }
    }

    /// The next event and the time at which it arrived; none at the end.
    pub fn next_at(&self) -> Option<(Event, Instant)> {
        // Heartbeats put nothing off.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.said_before(deadline) {
                (Said::Event(event), at) => return Some((event, at)),
                (Said::Comment(_), _) => {}
                (Said::End { .. }, _) => return None,
            }
        }
    }

    pub fn next(&self) -> Option<Event> {
        Some(self.next_at()?.0)
    }

    pub fn event(&self) -> Event {
        self.next().expect("an event before the stream ends")
    }

    /// Reads until the cursor has come to `head`; gives the versions seen.
    pub fn versions_until(&self, head: i64) -> Vec<i64> {
        let mut seen = Vec::new();
        loop {
            let event = self.event();
            seen.extend(event.versions());
            if event.cursor() >= head {
                return seen;
            }
        }
    }
}

/// Reads a stream to its end, or until `hear` returns false.
pub fn read(reader: impl BufRead, mut hear: impl FnMut(Said) -> bool) {
    let mut event = Event::default();
    let mut data = Vec::new();
    for line in reader.lines() {
        let Ok(line) = line else {
            hear(Said::End { whole: false });
            return;
        };
        let said = match line.split_once(':') {
            _ if line.is_empty() && data.is_empty() => continue,
            _ if line.is_empty() => {
                event.data = std::mem::take(&mut data).join("\n");
                Said::Event(std::mem::take(&mut event))
            }
            Some(("", comment)) => Said::Comment(comment.trim_start().to_owned()),
            Some((field, value)) => {
                let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
                match field {
                    "event" => event.name = value,
                    "id" => event.id = Some(value),
                    "data" => data.push(value),
                    "retry" => assert_eq!(value, "1000"),
                    _ => panic!("an unknown field: {line}"),
                }
                continue;
            }
            None => panic!("a line without a field: {line}"),
        };
        if !hear(said) {
            return;
        }
    }
    hear(Said::End { whole: data.is_empty() });
}
