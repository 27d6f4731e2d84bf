//! A database: each call in a transaction of its own, as the request's user.

use std::time::Duration;

use anyhow::Result;
use deadpool_postgres::{
    Client, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Status,
};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tracing::{Instrument, Span};

use crate::config::Config;
use crate::failure::Failure;

/// An argument of a call and its type. With the type given, a call is sent without
/// preparing it first, which saves a round trip and suits pooling proxies.
pub type Argument<'a> = (&'a (dyn ToSql + Sync), Type);

/// Attempts for a call that conflicts with another transaction. Pushing again is
/// harmless: an op is recognized by its opId.
pub const TRIES: u32 = 4;

/// A connection keeps a buffer as large as the largest reply that it has read: after a
/// reply of more bytes it is closed.
const LARGE: usize = 4 << 20;

pub struct Database {
    pool: Pool,
    pub call_timeout: Duration,
    /// Names it in the log, where there are several.
    pub span: Span,
}

impl Database {
    pub fn new(
        config: &Config,
        address: &tokio_postgres::Config,
        pool_size: usize,
        span: Span,
    ) -> Result<Database> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let tls = config.tls(address)?;
        let manager = Manager::from_config(address.clone(), tls, recycling);
        let patience = Some(config.database_timeout);
        let pool = Pool::builder(manager)
            .max_size(pool_size)
            .wait_timeout(patience)
            .create_timeout(patience)
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(Database { pool, call_timeout: config.call_timeout, span })
    }

    pub fn pool(&self) -> Status {
        self.pool.status()
    }

    pub async fn connection(&self) -> Result<Object, Failure> {
        let connection = async { Ok(self.pool.get().await?) };
        connection.instrument(self.span.clone()).await
    }

    /// Calls a function as `user`, or as a trusted caller, and returns its reply.
    pub async fn call(
        &self,
        user: Option<&str>,
        sql: &str,
        arguments: &[Argument<'_>],
    ) -> Result<String, Failure> {
        let mut tries = 1;
        loop {
            let attempt = self.attempt(user, sql, arguments);
            match attempt.instrument(self.span.clone()).await {
                Err(failure) if failure.is_conflict() && tries < TRIES => tries += 1,
                answer => return answer,
            }
        }
    }

    async fn attempt(
        &self,
        user: Option<&str>,
        sql: &str,
        arguments: &[Argument<'_>],
    ) -> Result<String, Failure> {
        let mut client = self.pool.get().await?;
        match timeout(self.call_timeout, run(&mut client, user, sql, arguments)).await {
            Ok(answer) => {
                if answer.as_ref().is_ok_and(|reply| reply.len() > LARGE) {
                    drop(Object::take(client));
                }
                answer
            }
            Err(_) => {
                // Back in the pool, it would make the next call wait as long.
                drop(Object::take(client));
                Err(Failure::unanswered())
            }
        }
    }
}

async fn run(
    client: &mut Client,
    user: Option<&str>,
    sql: &str,
    arguments: &[Argument<'_>],
) -> Result<String, Failure> {
    // Rolled back when dropped, also if the client has gone away.
    let transaction = client.transaction().await?;
    if let Some(user) = user {
        // Ends with the transaction: the connection's next call is for another user.
        let set_user = "select set_config('sync_ext.user_id', $1, true)";
        transaction.query_typed(set_user, &[(&user, Type::TEXT)]).await?;
    }
    let row = transaction.query_typed_one(sql, arguments).await?;
    let reply = row.try_get(0)?;
    transaction.commit().await?;
    Ok(reply)
}
