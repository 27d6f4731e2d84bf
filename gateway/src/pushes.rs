//! Which pushes to a server wait for which workspace.
//!
//! sync_ext locks a workspace until its push is on disk, so that its pushes are stored one
//! after the other. Those that come meanwhile are stored together as soon as it is free.
//! One that comes while nothing of its workspace is under way waits for nothing.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tracing::Instrument;

use crate::config::Config;
use crate::database::{Argument, Database};
use crate::failure::Failure;
use crate::group::{self, Push};

/// The ops of a group, unless they are of one push.
const MAX_BYTES: usize = 1 << 20;

/// A transaction that takes longer keeps the pushes behind it waiting no more: it may wait
/// for what they do not need.
const SLOW: Duration = Duration::from_millis(100);

pub struct Pushes {
    database: Arc<Database>,
    max: usize,
    patience: Duration,
    /// Those of the workspaces that are being served.
    queues: Mutex<HashMap<String, VecDeque<Push>>>,
    /// Slow transactions behind which their workspace goes on have a quarter of the pool.
    slow: Arc<Semaphore>,
    /// Pushes that are stored beside the groups of their workspace have another.
    aside: Semaphore,
}

impl Pushes {
    pub fn new(config: &Config, database: Arc<Database>) -> Pushes {
        Pushes {
            database,
            max: config.group_max.into(),
            patience: config.database_timeout + config.call_timeout,
            queues: Mutex::default(),
            slow: Arc::new(Semaphore::new(config.pool_size / 4)),
            aside: Semaphore::new((config.pool_size / 4).max(1)),
        }
    }

    /// Pushes, and returns the reply once it is committed.
    pub async fn push(
        self: &Arc<Pushes>,
        workspace_id: &str,
        user: Option<&str>,
        ops: Arc<String>,
    ) -> Result<String, Failure> {
        if self.max == 1 {
            return self.call(workspace_id, user, &ops).await;
        }
        let (answer, answered) = oneshot::channel();
        let user = user.map(str::to_owned);
        self.enqueue(workspace_id, Push { user, ops, answer });
        let mut place = Place { pushes: self, workspace_id, answered };
        match timeout(self.patience, &mut place.answered).await {
            Ok(answer) => answer.unwrap_or_else(|error| Err(Failure::internal("XX000", error))),
            Err(_) => Err(Failure::unanswered()),
        }
    }

    pub fn waiting(&self) -> usize {
        self.queues().values().map(VecDeque::len).sum()
    }

    /// In a transaction of its own.
    async fn call(
        &self,
        workspace_id: &str,
        user: Option<&str>,
        ops: &str,
    ) -> Result<String, Failure> {
        let sql = "select sync_push($1, $2::json)::text";
        let arguments: [Argument<'_>; 2] = [(&workspace_id, Type::TEXT), (&ops, Type::TEXT)];
        self.database.call(user, sql, &arguments).await
    }

    fn enqueue(self: &Arc<Pushes>, workspace_id: &str, push: Push) {
        let mut queues = self.queues();
        if let Some(queue) = queues.get_mut(workspace_id) {
            queue.push_back(push);
        } else {
            queues.insert(workspace_id.to_owned(), VecDeque::from([push]));
            tokio::spawn(self.clone().serve(workspace_id.to_owned()));
        }
    }

    /// Stores what waits for a workspace, one transaction after the other, until nothing
    /// is left.
    async fn serve(self: Arc<Pushes>, workspace_id: String) {
        let _served = Served { pushes: &self, workspace_id: &workspace_id };
        while let Some(next) = self.next(&workspace_id) {
            let (pushes, of) = (self.clone(), workspace_id.clone());
            let mut stored: Pin<Box<dyn Future<Output = ()> + Send>> = match next {
                Next::One(push) => Box::pin(async move { pushes.store_one(&of, push).await }),
                Next::Group => {
                    let connection = self.database.connection().await;
                    Box::pin(pushes.store_group(of, connection))
                }
            };
            let is_slow = async {
                sleep(SLOW).await;
                self.slow.clone().acquire_owned().await
            };
            tokio::select! {
                () = &mut stored => {}
                place = is_slow => {
                    tokio::spawn(async move {
                        stored.await;
                        drop(place);
                    });
                }
            }
        }
    }

    /// As if there were no groups. Ends when the client goes away.
    async fn store_one(&self, workspace_id: &str, mut push: Push) {
        let stored = self.call(workspace_id, push.user.as_deref(), &push.ops);
        tokio::select! {
            () = push.answer.closed() => {}
            answer = stored => push.answer(answer),
        }
    }

    async fn store_group(
        self: Arc<Pushes>,
        workspace_id: String,
        connection: Result<Object, Failure>,
    ) {
        // With those that came while there was no connection.
        let group = self.take(&workspace_id);
        match connection {
            Ok(connection) => {
                let Database { call_timeout, span, .. } = &*self.database;
                let stored = group::store(connection, &workspace_id, group, *call_timeout);
                for push in stored.instrument(span.clone()).await {
                    tokio::spawn(self.clone().store_aside(workspace_id.clone(), push));
                }
            }
            Err(failure) => group.into_iter().for_each(|push| push.answer(Err(failure.clone()))),
        }
    }

    async fn store_aside(self: Arc<Pushes>, workspace_id: String, mut push: Push) {
        tokio::select! {
            () = push.answer.closed() => {}
            _place = self.aside.acquire() => self.store_one(&workspace_id, push).await,
        }
    }

    /// What to store next; if there is nothing, the workspace is forgotten.
    fn next(&self, workspace_id: &str) -> Option<Next> {
        let mut queues = self.queues();
        let queue = queues.get_mut(workspace_id)?;
        match queue.len() {
            0 => {
                queues.remove(workspace_id);
                None
            }
            1 => queue.pop_front().map(Next::One),
            _ => Some(Next::Group),
        }
    }

    /// The first ones, at least one if there is any.
    fn take(&self, workspace_id: &str) -> Vec<Push> {
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(workspace_id) else { return Vec::new() };
        let mut bytes = 0;
        let fit = queue.iter().take(self.max).take_while(|push| {
            bytes += push.ops.len();
            bytes <= MAX_BYTES
        });
        let count = fit.count().max(1).min(queue.len());
        queue.drain(..count).collect()
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Push>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A workspace that is served. Should that panic, its pushes must not wait for ever.
struct Served<'p> {
    pushes: &'p Pushes,
    workspace_id: &'p str,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.pushes.queues().remove(self.workspace_id);
        }
    }
}

enum Next {
    One(Push),
    /// Those that wait when there is a connection.
    Group,
}

/// A client's place in a queue, which holds its ops. When the client goes away, they go,
/// too: what waits is never more than what the open connections have sent.
struct Place<'p> {
    pushes: &'p Pushes,
    workspace_id: &'p str,
    answered: oneshot::Receiver<Result<String, Failure>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.answered.is_terminated() {
            return;
        }
        self.answered.close();
        if let Some(queue) = self.pushes.queues().get_mut(self.workspace_id) {
            queue.retain(|push| !push.answer.is_closed());
        }
    }
}
