//! Settings, from the environment.

use std::env;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::http::HeaderName;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Semaphore;

/// For standard streams, the runtime, the listening sockets, name resolution.
const OWN_FILES: usize = 32;

pub struct Config {
    /// For the calls.
    pub database: tokio_postgres::Config,
    /// For LISTEN, which a pooling proxy does not let through.
    pub listen_database: tokio_postgres::Config,
    pub channel: String,
    pub pool_size: usize,
    pub database_timeout: Duration,
    pub call_timeout: Duration,
    pub address: String,
    pub user_header: HeaderName,
    /// Requests without a user are trusted.
    pub trusted: bool,
    pub heartbeat: Duration,
    pub stream_age: Duration,
    pub write_timeout: Duration,
    pub stop_timeout: Duration,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub max_connections: usize,
    pub max_body_bytes: usize,
}

impl Config {
    pub fn from_environment() -> Result<Config> {
        let url = env::var("DATABASE_URL").context("DATABASE_URL is not set")?;
        let listen_url = env::var("LISTEN_DATABASE_URL").unwrap_or_else(|_| url.clone());
        let database_timeout = seconds("GATEWAY_DATABASE_TIMEOUT", "10")?;
        let pool_size = setting("GATEWAY_POOL_SIZE", "16")?;
        Ok(Config {
            database: database(&url, "sync_ext_gateway", database_timeout)?,
            listen_database: database(&listen_url, "sync_ext_gateway listen", database_timeout)?,
            channel: setting("GATEWAY_CHANNEL", "sync_ext")?,
            pool_size,
            database_timeout,
            call_timeout: seconds("GATEWAY_CALL_TIMEOUT", "40")?,
            address: setting("GATEWAY_ADDRESS", "127.0.0.1:8080")?,
            user_header: setting("GATEWAY_USER_HEADER", "x-user-id")?,
            trusted: is_on("GATEWAY_TRUSTED")?,
            heartbeat: seconds("GATEWAY_HEARTBEAT", "15")?,
            stream_age: seconds("GATEWAY_STREAM_AGE", "3600")?,
            write_timeout: seconds("GATEWAY_WRITE_TIMEOUT", "30")?,
            stop_timeout: seconds("GATEWAY_STOP_TIMEOUT", "10")?,
            header_timeout: seconds("GATEWAY_HEADER_TIMEOUT", "10")?,
            body_timeout: seconds("GATEWAY_BODY_TIMEOUT", "30")?,
            max_connections: max_connections(pool_size)?,
            max_body_bytes: setting("GATEWAY_MAX_BODY_BYTES", "16777216")?,
        })
    }
}

fn database(url: &str, name: &str, patience: Duration) -> Result<tokio_postgres::Config> {
    let mut config: tokio_postgres::Config = url.parse().context("the URL of a database")?;
    // The kernel then ends, too, what waits on a machine that has gone. It counts
    // in whole seconds, and refuses 0.
    let patience = Duration::from_secs(patience.as_secs().max(1));
    config
        .application_name(name)
        .tcp_user_timeout(patience)
        .keepalives_idle(patience)
        .keepalives_interval(patience)
        .keepalives_retries(2);
    Ok(config)
}

/// The setting, or fewer where the file limit is low: calls that have been accepted
/// still need connections to the database.
fn max_connections(pool_size: usize) -> Result<usize> {
    let wanted: usize = setting("GATEWAY_MAX_CONNECTIONS", "1000")?;
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the file limit")?;
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let max = wanted.min(files_left(files, pool_size)).min(Semaphore::MAX_PERMITS);
    if max == 0 {
        bail!("no connections: GATEWAY_MAX_CONNECTIONS is {wanted}, the file limit {files}");
    }
    if max < wanted {
        eprintln!("GATEWAY_MAX_CONNECTIONS is {max}, not {wanted}: the file limit is {files}");
    }
    Ok(max)
}

/// Twice the pool: while a lost connection ends, its successor may be open already.
fn files_left(files: usize, pool_size: usize) -> usize {
    files.saturating_sub(OWN_FILES).saturating_sub(pool_size.saturating_mul(2))
}

fn setting<T: FromStr<Err: Display>>(name: &str, default: &str) -> Result<T> {
    let text = env::var(name).unwrap_or_else(|_| default.to_owned());
    text.parse().map_err(|error| anyhow::anyhow!("{name} is {text:?}: {error}"))
}

fn seconds(name: &str, default: &str) -> Result<Duration> {
    let duration = Duration::try_from_secs_f64(setting(name, default)?)
        .with_context(|| format!("{name} is no time"))?;
    if duration.is_zero() {
        bail!("{name} must be above 0");
    }
    Ok(duration)
}

/// Off unless it is said plainly: it decides who is trusted.
fn is_on(name: &str) -> Result<bool> {
    match env::var(name).unwrap_or_default().as_str() {
        "on" => Ok(true),
        "" | "off" => Ok(false),
        other => bail!("{name} is {other:?}, not on or off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_database() {
        assert_eq!(files_left(1024, 16), 960);
        assert_eq!(files_left(32, 0), 0);
        assert_eq!(files_left(1024, usize::MAX), 0);
    }

    #[test]
    fn what_waits_on_a_machine_that_has_gone_ends() {
        for (patience, seconds) in [(10.0, 10), (0.5, 1)] {
            let patience = Duration::from_secs_f64(patience);
            let config = database("postgres://gateway@localhost/app", "name", patience).unwrap();
            let seconds = Duration::from_secs(seconds);
            assert_eq!(config.get_tcp_user_timeout(), Some(&seconds));
            assert_eq!(config.get_keepalives_idle(), seconds);
            assert_eq!(config.get_keepalives_interval(), Some(seconds));
            assert!(config.get_keepalives());
        }
    }
}
