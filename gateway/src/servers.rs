//! The servers, and which of them a call goes to.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{Span, error_span};

use crate::addresses::Address;
use crate::config::{Config, MapAddress};
use crate::database::{Argument, Database};
use crate::failure::Failure;
use crate::map::Map;
use crate::map_watch::{MapWatch, Source};
use crate::merge;
use crate::pushes::Pushes;
use crate::standby::Standby;

/// How long a call looks for a workspace that moves. Its client can wait better.
const LONGEST_SEARCH: Duration = Duration::from_secs(5);
const BACK_OFF: Duration = Duration::from_millis(50);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// In the order of their numbers.
pub struct Servers {
    servers: Vec<Server>,
    /// `None` where there is one server.
    pub map: Option<MapWatch>,
    patience: Duration,
}

/// Whether a standby's reply is enough; `None` where only the primary's is.
pub type IsEnough<'e> = Option<&'e (dyn Fn(&str) -> bool + Sync)>;

pub struct Server {
    /// Where it has one.
    pub name: Option<String>,
    /// The primary.
    pub database: Arc<Database>,
    pub pushes: Arc<Pushes>,
    pub standbys: Vec<Arc<Standby>>,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// How the primary is connected to for LISTEN.
    pub listen: tokio_postgres::Config,
    /// Whether its notifications arrive at the moment.
    pub is_listening: AtomicBool,
    /// Answers that a workspace is elsewhere.
    pub elsewhere: AtomicU64,
    /// Reads by its standbys, and those of them that the primary had to make again.
    pub standby_reads: AtomicU64,
    pub standby_fallbacks: AtomicU64,
}

impl Server {
    fn new(config: &Config, address: Address) -> Result<Server> {
        // It has to be in the log, whatever the level.
        let span = match &address.name {
            Some(name) => error_span!("server", name = name.as_str()),
            None => Span::none(),
        };
        let standby = |(number, at): (usize, &tokio_postgres::Config)| {
            let span = error_span!(parent: &span, "standby", number);
            let database = Database::new(config, at, config.pool_size, span)?;
            Ok(Arc::new(Standby::new(database)))
        };
        let standbys = address.standbys.iter().enumerate().map(standby).collect::<Result<_>>()?;
        let database = Database::new(config, &address.primary, config.pool_size, span)?;
        let database = Arc::new(database);
        Ok(Server {
            name: address.name,
            pushes: Arc::new(Pushes::new(config, database.clone())),
            database,
            standbys,
            turn: AtomicUsize::new(0),
            listen: address.listen,
            is_listening: AtomicBool::new(false),
            elsewhere: AtomicU64::new(0),
            standby_reads: AtomicU64::new(0),
            standby_fallbacks: AtomicU64::new(0),
        })
    }

    /// Whether it says that it does not have the workspace, which counts.
    fn is_elsewhere<T>(&self, answer: &Result<T, Failure>) -> bool {
        let is_elsewhere = answer.as_ref().is_err_and(Failure::is_elsewhere);
        self.elsewhere.fetch_add(is_elsewhere.into(), Ordering::Relaxed);
        is_elsewhere
    }

    pub fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }

    pub fn standbys_up(&self) -> usize {
        self.standbys.iter().filter(|standby| standby.is_up()).count()
    }

    /// Calls a standby if there is one, or else the primary. The primary decides, too, where
    /// the standby's reply is not enough, and errors: the standby's members and roles may be old.
    pub async fn ask(
        &self,
        user: Option<&str>,
        sql: &str,
        arguments: &[Argument<'_>],
        is_enough: IsEnough<'_>,
    ) -> Result<String, Failure> {
        if let Some(is_enough) = is_enough
            && let Some(standby) = self.standby()
        {
            self.standby_reads.fetch_add(1, Ordering::Relaxed);
            match standby.call(user, sql, arguments).await {
                Ok(reply) if is_enough(&reply) => return Ok(reply),
                _ => self.standby_fallbacks.fetch_add(1, Ordering::Relaxed),
            };
        }
        self.database.call(user, sql, arguments).await
    }

    /// The next one that is up.
    fn standby(&self) -> Option<&Arc<Standby>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.standbys.len();
        let mut in_turn = (0..count).map(|step| &self.standbys[turn.wrapping_add(step) % count]);
        in_turn.find(|standby| standby.is_up())
    }
}

impl Deref for Servers {
    type Target = [Server];

    fn deref(&self) -> &[Server] {
        &self.servers
    }
}

impl Servers {
    pub async fn new(config: &Config) -> Result<Servers> {
        let addresses = config.addresses()?;
        let names = addresses.iter().filter_map(|at| at.name.clone()).collect();
        let source = match config.map()? {
            Some(MapAddress::File(path)) => Some(Source::File(path)),
            Some(MapAddress::Database(at)) => {
                let database = Database::new(config, &at, 1, error_span!("map"))?;
                Some(Source::Database(Box::new(database)))
            }
            None if addresses.len() > 1 => {
                bail!("several servers need a map: GATEWAY_MAP is not set")
            }
            None => None,
        };
        let map = match source {
            Some(source) => Some(MapWatch::new(source, names, config.map_interval).await?),
            None => None,
        };
        let servers = addresses.into_iter().map(|at| Server::new(config, at));
        Ok(Servers {
            servers: servers.collect::<Result<_>>()?,
            map,
            patience: config.call_timeout.min(LONGEST_SEARCH),
        })
    }

    /// That of a workspace, by the map as it is now.
    pub fn of(&self, workspace_id: &str) -> Result<&Server, Failure> {
        Ok(self.routed(workspace_id)?.0)
    }

    /// The same with the map that says so.
    fn routed(&self, workspace_id: &str) -> Result<(&Server, Option<Arc<Map>>), Failure> {
        let Some(watch) = &self.map else { return Ok((&self.servers[0], None)) };
        match watch.map() {
            Some(map) => Ok((&self.servers[map.server_of(workspace_id)], Some(map))),
            None => {
                watch.want();
                Err(Failure::no_map())
            }
        }
    }

    /// False if the map places it on another server.
    pub fn may_be_at(&self, workspace_id: &str, number: usize) -> bool {
        let map = self.map.as_ref().and_then(MapWatch::map);
        map.is_none_or(|map| map.server_of(workspace_id) == number)
    }

    /// After an answer for which nobody waits: has the map read where it may be old.
    pub fn look_again<T>(&self, server: &Server, answer: &Result<T, Failure>) {
        if server.is_elsewhere(answer)
            && let Some(watch) = &self.map
        {
            watch.want();
        }
    }

    /// For a call that has not been answered yet.
    pub fn search<'s>(&'s self, workspace_id: &'s str) -> Search<'s> {
        Search { servers: self, workspace_id, map: None, until: None, back_off: BACK_OFF }
    }

    /// The answers of all servers, in their order.
    pub async fn call_each(&self, user: Option<&str>, sql: &str) -> Vec<Result<String, Failure>> {
        join_all(self.servers.iter().map(|server| server.database.call(user, sql, &[]))).await
    }

    /// The replies of all servers as one. A part of it would look like the whole.
    pub async fn call_all(&self, user: Option<&str>, sql: &str) -> Result<String, Failure> {
        let answers = self.call_each(user, sql).await.into_iter().enumerate();
        self.merged(
            answers
                .map(|(number, answer)| Ok((number, answer?)))
                .collect::<Result<_, Failure>>()?,
        )
    }

    /// The replies of servers, with their numbers, as one.
    pub fn merged(&self, mut replies: Vec<(usize, String)>) -> Result<String, Failure> {
        if replies.len() == 1 {
            return Ok(replies.remove(0).1);
        }
        let is_at_home = |workspace_id: &str, number| self.may_be_at(workspace_id, number);
        merge::workspaces(&replies, is_at_home).map_err(|error| Failure::internal("XX000", error))
    }
}

/// What a call does while its workspace is elsewhere: it looks at the map again, and waits.
/// Where it was refused, nothing was done.
pub struct Search<'s> {
    servers: &'s Servers,
    workspace_id: &'s str,
    /// By which the last call was made.
    map: Option<Arc<Map>>,
    until: Option<Instant>,
    back_off: Duration,
}

impl<'s> Search<'s> {
    /// The server to call.
    pub fn server(&mut self) -> Result<&'s Server, Failure> {
        let (server, map) = self.servers.routed(self.workspace_id)?;
        self.map = map;
        Ok(server)
    }

    /// Whether to call again.
    pub async fn goes_on<T>(&mut self, server: &Server, answer: &Result<T, Failure>) -> bool {
        if !server.is_elsewhere(answer) {
            return false;
        }
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + self.servers.patience);
        if let (Some(watch), Some(map)) = (&self.servers.map, &self.map) {
            match timeout_at(until, watch.newer(map, now)).await {
                Ok(true) => return now < until,
                Ok(false) => {}
                Err(_) => return false,
            }
        }
        let next = now + self.back_off;
        self.back_off = (self.back_off * 2).min(LONGEST_BACK_OFF);
        sleep_until(next.min(until)).await;
        next < until
    }
}
