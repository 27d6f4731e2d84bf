//! Pushes of one workspace in one transaction: they wait once for the disk, together.
//!
//! All statements are sent at once. If a push fails, nothing is stored, and those before
//! it, that one, and those after it are stored apart.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::future::{MaybeDone, maybe_done};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::{Error, Severity};
use tokio_postgres::types::Type;

use crate::database::{Argument, TRIES};
use crate::failure::{ELSEWHERE, Failure, is_conflict};

/// FROM is evaluated first, in the same statement: a push never runs as the user of
/// another one, not even outside the transaction if BEGIN was cancelled. NULL sets what
/// the session began with, as for a call without a user.
const PUSH: &str = "select sync_push($1, $2::json)::text \
                    from set_config('sync_ext.user_id', $3, true)";

/// For all but the first push, which holds nothing before it has its workspace. The others
/// hold that already, and could not let it go while they wait for a row of an own table.
/// A lower limit of the role stays.
const LIMIT: &str = "select set_config('statement_timeout', '500ms', true) \
                     where current_setting('statement_timeout')::interval \
                           not between '1ms' and '500ms'";

/// A push that waits for its answer.
pub struct Push {
    pub user: Option<String>,
    /// Its call keeps them, too, and may need them again.
    pub ops: Arc<String>,
    pub answer: oneshot::Sender<Result<String, Failure>>,
}

impl Push {
    pub fn answer(self, answer: Result<String, Failure>) {
        // The client may have gone away.
        let _ = self.answer.send(answer);
    }
}

/// Why a transaction was not committed.
enum Failed {
    /// It was rolled back, because of the push at this place if there is one.
    Raised { at: Option<usize>, error: Error },
    /// It may be committed or not, and the connection is of no use.
    Lost(Failure),
}

impl Failed {
    fn is_conflict(&self) -> bool {
        match self {
            Failed::Raised { error, .. } => {
                error.code().is_some_and(|code| is_conflict(code.code()))
            }
            Failed::Lost(_) => false,
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        let severity = error.as_db_error().map(|raised| raised.parsed_severity());
        match severity {
            Some(Some(Severity::Fatal | Severity::Panic)) | None => {
                Failed::Lost(Failure::connection_lost(&error))
            }
            Some(_) => Failed::Raised { at: None, error },
        }
    }
}

/// Stores the pushes and answers them, except for those that it returns: they did not
/// fit into a transaction with others.
pub async fn store(
    connection: Object,
    workspace_id: &str,
    pushes: Vec<Push>,
    patience: Duration,
) -> Vec<Push> {
    let (mut parts, mut misfits) = (vec![pushes], Vec::new());
    while let Some(mut part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        match store_together(&connection, workspace_id, &part, patience).await {
            Ok(replies) => {
                for (push, reply) in part.into_iter().zip(replies) {
                    push.answer(Ok(reply));
                }
            }
            Err(Failed::Lost(failure)) => {
                // Back in the pool, it would make the next call wait as long.
                drop(Object::take(connection));
                for push in parts.into_iter().flatten().chain(part) {
                    push.answer(Err(failure.clone()));
                }
                return misfits;
            }
            // As would all of them.
            Err(Failed::Raised { error, .. }) if is_elsewhere(&error) => {
                let failure = Failure::from(error);
                for push in parts.into_iter().flatten().chain(part) {
                    push.answer(Err(failure.clone()));
                }
                return misfits;
            }
            // It failed on its own, as no other came before it.
            Err(Failed::Raised { at: Some(0), error }) => {
                part.remove(0).answer(Err(error.into()));
                parts.push(part);
            }
            Err(Failed::Raised { at: Some(at), .. }) => {
                parts.push(part.split_off(at + 1));
                misfits.extend(part.pop());
                parts.push(part);
            }
            Err(Failed::Raised { at: None, error }) if part.len() == 1 => {
                part.remove(0).answer(Err(error.into()));
            }
            Err(Failed::Raised { at: None, .. }) => misfits.extend(part),
        }
    }
    misfits
}

fn is_elsewhere(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == ELSEWHERE)
}

async fn store_together(
    client: &Client,
    workspace_id: &str,
    pushes: &[Push],
    patience: Duration,
) -> Result<Vec<String>, Failed> {
    let mut tries = 1;
    loop {
        match transact(client, workspace_id, pushes, patience).await {
            Err(failed) if failed.is_conflict() && tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

async fn transact(
    client: &Client,
    workspace_id: &str,
    pushes: &[Push],
    patience: Duration,
) -> Result<Vec<String>, Failed> {
    let begin = sent(client.batch_execute("begin")).await;
    let mut requests = Vec::with_capacity(pushes.len());
    let mut limit = None;
    for (place, push) in pushes.iter().enumerate() {
        if place == 1 {
            limit = Some(sent(client.query_typed(LIMIT, &[])).await);
        }
        requests.push(sent(store_one(client, workspace_id, push)).await);
    }
    // Of a transaction that has failed, it is a rollback.
    let commit = sent(client.batch_execute("commit")).await;

    answered(begin, patience).await?;
    let mut replies = Vec::with_capacity(pushes.len());
    for (at, request) in requests.into_iter().enumerate() {
        if at == 1
            && let Some(limit) = limit.take()
        {
            answered(limit, patience).await?;
        }
        let reply = answered(request, patience).await.map_err(|failed| match failed {
            Failed::Raised { error, .. } => Failed::Raised { at: Some(at), error },
            lost => lost,
        })?;
        replies.push(reply);
    }
    answered(commit, patience).await?;
    Ok(replies)
}

async fn store_one(client: &Client, workspace_id: &str, push: &Push) -> Result<String, Error> {
    let arguments: [Argument<'_>; 3] =
        [(&workspace_id, Type::TEXT), (&*push.ops, Type::TEXT), (&push.user, Type::TEXT)];
    client.query_typed_one(PUSH, &arguments).await?.try_get(0)
}

type Sent<F> = Pin<Box<MaybeDone<F>>>;

/// Sends a request, which its first poll does: requests arrive in this order.
async fn sent<F: Future>(request: F) -> Sent<F> {
    let mut sent = Box::pin(maybe_done(request));
    poll_fn(|context| Poll::Ready(sent.as_mut().poll(context).is_ready())).await;
    sent
}

/// Waits for the answer to a request; those sent before it must have been answered.
async fn answered<T, F>(mut sent: Sent<F>, patience: Duration) -> Result<T, Failed>
where
    F: Future<Output = Result<T, Error>>,
{
    let in_time = timeout(patience, sent.as_mut()).await;
    match sent.as_mut().take_output() {
        Some(answer) if in_time.is_ok() => Ok(answer?),
        _ => Err(Failed::Lost(Failure::unanswered())),
    }
}
