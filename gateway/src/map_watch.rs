//! The map as it is now: read when the gateway starts, from time to time, on SIGHUP, and when a
//! server says that a workspace is elsewhere. One that is wrong is not taken.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::database::Database;
use crate::map::{Map, Rows};

/// Between two readings, however many calls ask for one.
const GAP: Duration = Duration::from_millis(200);

/// One statement, so that both tables are of one moment.
const READ: &str = "select json_build_object(
    'buckets', (select coalesce(json_agg(json_build_array(bucket, shard)), '[]')
                  from sync_router.bucket),
    'placed', (select coalesce(json_agg(json_build_array(workspace_id, shard)), '[]')
                 from sync_router.placed))::text";

pub enum Source {
    File(String),
    /// The router's.
    Database(Box<Database>),
}

pub struct MapWatch {
    source: Source,
    /// Of the servers, in their order.
    names: Vec<String>,
    interval: Duration,
    wanted: Notify,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    map: Option<Arc<Map>>,
    /// When the last reading began.
    read_at: Option<Instant>,
    readings: u64,
    failures: u64,
}

impl MapWatch {
    /// With the map, unless it is in a database, which may come later.
    pub async fn new(source: Source, names: Vec<String>, interval: Duration) -> Result<MapWatch> {
        let (wanted, state) = (Notify::new(), watch::Sender::default());
        let watch = MapWatch { source, names, interval, wanted, state };
        let first = watch.read().await;
        if matches!(watch.source, Source::File(_)) {
            first.context("GATEWAY_MAP")?;
        }
        Ok(watch)
    }

    /// `None` before the first one could be read.
    pub fn map(&self) -> Option<Arc<Map>> {
        self.state.borrow().map.clone()
    }

    /// How often it was read, and how often that failed.
    pub fn readings(&self) -> (u64, u64) {
        let state = self.state.borrow();
        (state.readings, state.failures)
    }

    /// Reads it as soon as it may be read.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// Whether there is another map than this one: waits for a reading that began after
    /// `moment`, unless there is one already. Those who wait share the reading.
    pub async fn newer(&self, map: &Arc<Map>, moment: Instant) -> bool {
        let is_other = |state: &State| state.map.as_ref().is_some_and(|now| !Arc::ptr_eq(now, map));
        let is_known =
            |state: &State| is_other(state) || state.read_at.is_some_and(|begin| begin > moment);
        let mut states = self.state.subscribe();
        if !is_known(&states.borrow_and_update()) {
            self.want();
        }
        // Fails only where nobody can send any more, who is this.
        states.wait_for(is_known).await.is_ok_and(|state| is_other(&state))
    }

    /// Reads it again and again. `changed` gets the map before, and the next one.
    pub async fn keep(&self, mut hang_up: Signal, changed: impl Fn(Option<&Map>, &Map)) {
        loop {
            let begin = Instant::now();
            let pause = if self.map().is_some() { self.interval } else { GAP };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wanted.notified() => {}
                _ = hang_up.recv() => {}
            }
            // Those who want it meanwhile are served by the next reading.
            sleep_until(begin + GAP).await;
            let before = self.map();
            // Its failure is logged and counted.
            let _ = self.read().await;
            if let Some(map) = self.map()
                && before.as_ref() != Some(&map)
            {
                changed(before.as_deref(), &map);
            }
        }
    }

    async fn read(&self) -> Result<()> {
        let begin = Instant::now();
        let read = self.fetch().await;
        if let Err(why) = &read {
            warn!(reason = format!("{why:#}"), "the map is not taken");
        }
        let mut failure = None;
        self.state.send_modify(|state| {
            state.read_at = Some(begin);
            state.readings += 1;
            match read {
                // The same one stays, so that it can be recognized.
                Ok(map) if state.map.as_deref() == Some(&map) => {}
                Ok(map) => {
                    info!(placed = map.placed(), "map read");
                    state.map = Some(Arc::new(map));
                }
                Err(why) => {
                    state.failures += 1;
                    failure = Some(why);
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    async fn fetch(&self) -> Result<Map> {
        match &self.source {
            Source::File(path) => {
                let (path, names) = (path.clone(), self.names.clone());
                let read = move || {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let json = std::fs::read_to_string(&path).map_err(Error::from);
                    json.and_then(|json| Map::of_document(&json, &names)).context(path)
                };
                spawn_blocking(read).await?
            }
            Source::Database(database) => {
                let reply = database.call(None, READ, &[]).await;
                let reply = reply.map_err(|failure| anyhow!(failure.to_json()))?;
                let rows: Rows = serde_json::from_str(&reply)?;
                Map::of_rows(rows, self.names.len())
            }
        }
    }
}
