//! Options, from the command line and the environment.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::http::{HeaderName, HeaderValue};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::Semaphore;
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::level_filters::LevelFilter;
use tracing::warn;

use crate::addresses::{self, Address};
use crate::{tls, token};

/// For standard streams, the runtime, the listening sockets, name resolution.
const OWN_FILES: usize = 32;

/// Serves sync_ext over HTTP: calls pass through, changes arrive as server-sent events.
/// Prints its URL when it serves, and logs to standard error.
///
/// Tokens name the users where a secret or keys are set; otherwise a proxy in front must
/// authenticate and set the user header.
#[derive(Parser)]
#[command(version)]
pub struct Config {
    /// Database for calls, on the primary. Prefer the variable for a URL with a password:
    /// other users of the machine can read arguments
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        required_unless_present = "database_urls"
    )]
    database_url: Option<String>,

    /// The same database for LISTEN, without a pooling proxy in transaction mode between
    /// [default: the database for calls]
    #[arg(long, env = "LISTEN_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    listen_database_url: Option<String>,

    /// Several servers instead: a JSON array of name, url, and if there are listenUrl and
    /// standbyUrls, in the order of the shards' numbers
    #[arg(long, env = "DATABASE_URLS", value_name = "JSON", hide_env_values = true,
        conflicts_with_all = ["database_url", "listen_database_url"])]
    database_urls: Option<String>,

    /// Which of several servers has which workspace: the URL of the router's database, or a
    /// file
    #[arg(long, env = "GATEWAY_MAP", value_name = "URL|FILE", hide_env_values = true)]
    map: Option<String>,

    /// Seconds after which the map is read again; above 0
    #[arg(long, env = "GATEWAY_MAP_INTERVAL", value_name = "SECONDS", default_value = "10",
        value_parser = seconds)]
    pub map_interval: Duration,

    /// File of root certificates (PEM) for a database URL with sslmode=require
    /// [default: those of the system]
    #[arg(long, env = "GATEWAY_DATABASE_CA", value_name = "FILE")]
    database_ca: Option<PathBuf>,

    /// Address to serve at; port 0 takes any free port
    #[arg(
        long,
        env = "GATEWAY_ADDRESS",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub address: String,

    /// Header that names the user
    #[arg(long, env = "GATEWAY_USER_HEADER", value_name = "NAME", default_value = "x-user-id")]
    pub user_header: HeaderName,

    #[command(flatten)]
    pub tokens: token::Options,

    /// Whether a request without a user is trusted: on or off. Needs
    /// sync_ext.require_user off
    #[arg(long, env = "GATEWAY_TRUSTED", value_name = "ON|OFF", default_value = "off",
        value_parser = on_or_off, action = clap::ArgAction::Set)]
    pub trusted: bool,

    /// Origins of other sites whose pages may call, separated by commas; * for any
    #[arg(long, env = "GATEWAY_ALLOW_ORIGIN", value_name = "ORIGINS", value_delimiter = ',')]
    pub allow_origin: Vec<HeaderValue>,

    /// Channel of notifications, as sync_ext.notify_channel
    #[arg(long, env = "GATEWAY_CHANNEL", value_name = "NAME", default_value = "sync_ext")]
    pub channel: String,

    /// Maximum number of connections to each database for calls and for the pulls of streams
    #[arg(long, env = "GATEWAY_POOL_SIZE", value_name = "COUNT", default_value = "16")]
    pub pool_size: usize,

    /// Maximum number of pushes that are stored in one transaction; 1 stores each in its own
    #[arg(long, env = "GATEWAY_GROUP_MAX", value_name = "COUNT", default_value = "64",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub group_max: u16,

    /// Seconds to wait for a database connection, and for a sign of life of the listening
    /// one; above 0
    #[arg(long, env = "GATEWAY_DATABASE_TIMEOUT", value_name = "SECONDS", default_value = "10",
        value_parser = seconds)]
    pub database_timeout: Duration,

    /// Seconds until a call without an answer is given up with its connection; above 0,
    /// and above statement_timeout
    #[arg(long, env = "GATEWAY_CALL_TIMEOUT", value_name = "SECONDS", default_value = "40",
        value_parser = seconds)]
    pub call_timeout: Duration,

    /// Seconds in which the header of a request must arrive, and after which an idle
    /// connection is closed; above 0
    #[arg(long, env = "GATEWAY_HEADER_TIMEOUT", value_name = "SECONDS", default_value = "10",
        value_parser = seconds)]
    pub header_timeout: Duration,

    /// Seconds in which a whole body must arrive; above 0
    #[arg(long, env = "GATEWAY_BODY_TIMEOUT", value_name = "SECONDS", default_value = "30",
        value_parser = seconds)]
    pub body_timeout: Duration,

    /// Maximum number of open connections, streams included; above 0, and at most the file
    /// limit less 32 and twice the pool size, for each database
    #[arg(long, env = "GATEWAY_MAX_CONNECTIONS", value_name = "COUNT", default_value = "1000")]
    pub max_connections: usize,

    /// Maximum size of a body in bytes
    #[arg(long, env = "GATEWAY_MAX_BODY_BYTES", value_name = "BYTES", default_value = "16777216")]
    pub max_body_bytes: usize,

    /// Seconds without an event after which a stream gets a comment; above 0
    #[arg(long, env = "GATEWAY_HEARTBEAT", value_name = "SECONDS", default_value = "15",
        value_parser = seconds)]
    pub heartbeat: Duration,

    /// Seconds after which a stream ends, so that its user is authenticated again; above 0
    #[arg(long, env = "GATEWAY_STREAM_AGE", value_name = "SECONDS", default_value = "3600",
        value_parser = seconds)]
    pub stream_age: Duration,

    /// Seconds after which a client that does not read is disconnected; above 0
    #[arg(long, env = "GATEWAY_WRITE_TIMEOUT", value_name = "SECONDS", default_value = "30",
        value_parser = seconds)]
    pub write_timeout: Duration,

    /// Seconds that calls have to finish after SIGTERM or SIGINT; above 0
    #[arg(long, env = "GATEWAY_STOP_TIMEOUT", value_name = "SECONDS", default_value = "10",
        value_parser = seconds)]
    pub stop_timeout: Duration,

    /// Least severe level to log: error, warn or info; off for none
    #[arg(long, env = "GATEWAY_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
}

/// Where the map is read.
pub enum MapAddress {
    File(String),
    Database(Box<tokio_postgres::Config>),
}

impl Config {
    /// Of the servers, in the order of their numbers.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        match (&self.database_urls, &self.database_url) {
            (Some(json), _) => addresses::of_several(json, self.database_timeout),
            (None, Some(url)) => {
                let listen_url = self.listen_database_url.as_deref();
                Ok(vec![addresses::of_one(url, listen_url, self.database_timeout)?])
            }
            (None, None) => bail!("there is no DATABASE_URL"),
        }
    }

    /// Where the map is: `None` where it takes none.
    pub fn map(&self) -> Result<Option<MapAddress>> {
        let Some(map) = &self.map else { return Ok(None) };
        if self.database_urls.is_none() {
            bail!("GATEWAY_MAP is of the servers in DATABASE_URLS, which is not set");
        }
        // As URLs of databases may be written.
        let is_database = map.contains("://") || map.contains('=');
        Ok(Some(match is_database {
            true => MapAddress::Database(Box::new(addresses::of_map(map, self.database_timeout)?)),
            false => MapAddress::File(map.clone()),
        }))
    }

    /// TLS for one of them.
    pub fn tls(&self, database: &tokio_postgres::Config) -> Result<MakeRustlsConnect> {
        tls::to_database(database.get_ssl_mode(), self.database_ca.as_deref())
    }

    /// Lowers the number of connections where the file limit is low: calls that have been
    /// accepted still need connections to the database.
    pub fn fit_file_limit(&mut self) -> Result<()> {
        let wanted = self.max_connections;
        let databases: usize = self.addresses()?.iter().map(|at| 1 + at.standbys.len()).sum();
        let (files, _) =
            getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the file limit")?;
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let max = wanted
            .min(files_left(files, self.pool_size.saturating_mul(databases)))
            .min(Semaphore::MAX_PERMITS);
        if max == 0 {
            bail!("no connections: GATEWAY_MAX_CONNECTIONS is {wanted}, the file limit {files}");
        }
        if max < wanted {
            warn!(max_connections = max, wanted, file_limit = files, "the file limit is low");
        }
        self.max_connections = max;
        Ok(())
    }
}

/// Twice the pools: while a lost connection ends, its successor may be open already.
fn files_left(files: usize, pool_size: usize) -> usize {
    files.saturating_sub(OWN_FILES).saturating_sub(pool_size.saturating_mul(2))
}

pub fn seconds(text: &str) -> Result<Duration> {
    let duration = Duration::try_from_secs_f64(text.parse()?)?;
    if duration.is_zero() {
        bail!("must be above 0");
    }
    Ok(duration)
}

/// Neither 1 nor true: it decides who is trusted.
fn on_or_off(text: &str) -> Result<bool> {
    match text {
        "on" => Ok(true),
        "" | "off" => Ok(false),
        _ => bail!("not on or off"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const README: &str = include_str!("../README.md");
    const URL: &str = "postgres://gateway:hidden@localhost/app";

    fn parse(options: &[&str]) -> Result<Config, String> {
        let all = [&["gateway", "--database-url", URL], options].concat();
        Config::try_parse_from(all).map_err(|error| error.to_string())
    }

    #[test]
    fn an_invalid_option_is_refused_with_its_reason() {
        for (option, value, reason) in [
            ("--heartbeat", "0", "must be above 0"),
            ("--heartbeat", "soon", "invalid float literal"),
            ("--heartbeat", "1e30", "too"),
            ("--pool-size", "many", "invalid digit"),
            ("--user-header", "x user", "invalid HTTP header name"),
            ("--trusted", "true", "not on or off"),
            ("--log-level", "loud", "level"),
        ] {
            let refusal = parse(&[option, value]).err().unwrap();
            assert!(refusal.contains(option) && refusal.contains(reason), "{refusal}");
        }
        let config = parse(&["--trusted", "on", "--heartbeat", "0.5"]).unwrap();
        assert!(config.trusted);
        assert_eq!(config.heartbeat, Duration::from_millis(500));
    }

    #[test]
    fn each_option_has_its_variable_and_its_line_in_the_readme() {
        for option in Config::command().get_arguments() {
            let name = option.get_long().unwrap().to_uppercase().replace('-', "_");
            let prefix = if name.contains("DATABASE_URL") { "" } else { "GATEWAY_" };
            let variable = format!("{prefix}{name}");
            assert_eq!(option.get_env().unwrap(), &*variable);
            let default = option.get_default_values().first();
            let default = default.map_or("", |default| default.to_str().unwrap());
            let line = format!("| {variable} | {default} | ").replace("|  |", "| |");
            assert!(README.replace('`', "").contains(&line), "{line}");
        }
    }

    #[test]
    fn connections_leave_files_for_the_database() {
        assert_eq!(files_left(1024, 16), 960);
        assert_eq!(files_left(32, 0), 0);
        assert_eq!(files_left(1024, usize::MAX), 0);
    }
}
