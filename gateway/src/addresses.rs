//! Where the servers are: the one of DATABASE_URL, or those of DATABASE_URLS. No error repeats
//! a value: a URL may hold a password.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// How a server is connected to.
pub struct Address {
    /// Of DATABASE_URLS, where it has one: for the log, metrics and `/health`.
    pub name: Option<String>,
    pub primary: Config,
    /// For LISTEN, which a pooling proxy does not let through.
    pub listen: Config,
    pub standbys: Vec<Config>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Named {
    name: String,
    url: String,
    listen_url: Option<String>,
    #[serde(default)]
    standby_urls: Vec<String>,
}

pub fn of_one(url: &str, listen_url: Option<&str>, patience: Duration) -> Result<Address> {
    Ok(Address {
        name: None,
        primary: calling(url, patience)?,
        listen: listening(listen_url.unwrap_or(url), patience)?,
        standbys: Vec::new(),
    })
}

pub fn of_several(json: &str, patience: Duration) -> Result<Vec<Address>> {
    let servers: Vec<Named> = serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        anyhow!(
            "DATABASE_URLS is not a JSON array of {{\"name\", \"url\", \"listenUrl\", \
             \"standbyUrls\"}}: line {line}, column {column}"
        )
    })?;
    ensure!(!servers.is_empty(), "DATABASE_URLS has no server");
    for (number, Named { name, .. }) in servers.iter().enumerate() {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ensure!(
            !name.is_empty() && name.bytes().all(is_plain),
            "DATABASE_URLS: the name of server {number} must be of letters, digits, '-', '_', '.'"
        );
        let is_twice = servers[..number].iter().any(|other| other.name == *name);
        ensure!(!is_twice, "DATABASE_URLS has two servers named {name}");
    }
    let addresses = servers.into_iter().map(|Named { name, url, listen_url, standby_urls }| {
        let address = || -> Result<Address> {
            let standbys = standby_urls.iter().map(|url| calling(url, patience));
            Ok(Address {
                name: Some(name.clone()),
                standbys: standbys.collect::<Result<_>>()?,
                ..of_one(&url, listen_url.as_deref(), patience)?
            })
        };
        address().with_context(|| format!("server {name} of DATABASE_URLS"))
    });
    addresses.collect()
}

pub fn of_map(url: &str, patience: Duration) -> Result<Config> {
    database(url, "sync_ext_gateway map", patience).context("GATEWAY_MAP")
}

fn calling(url: &str, patience: Duration) -> Result<Config> {
    database(url, "sync_ext_gateway", patience)
}

fn listening(url: &str, patience: Duration) -> Result<Config> {
    database(url, "sync_ext_gateway listen", patience)
}

/// Not a parser of clap's, whose errors repeat the value.
fn database(url: &str, name: &str, patience: Duration) -> Result<Config> {
    // As verify-full, require checks the server's certificate.
    let url = url.replace("sslmode=verify-full", "sslmode=require");
    let mut config: Config = url.parse().context("the URL of a database")?;
    if config.get_ssl_mode() == SslMode::Prefer {
        // It protects from nobody: who can intercept a connection can also refuse it TLS.
        config.ssl_mode(SslMode::Disable);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "postgres://gateway:hidden@localhost/app";
    const PATIENCE: Duration = Duration::from_secs(10);

    fn refusal<T>(read: Result<T>) -> String {
        let refusal = format!("{:#}", read.err().expect("a refusal"));
        assert!(!refusal.contains("hidden"), "{refusal}");
        refusal
    }

    #[test]
    fn an_invalid_url_is_refused_without_its_password() {
        let url = format!("{URL}?port=none");
        assert!(refusal(of_one(&url, None, PATIENCE)).contains("the URL of a database"));
        assert!(refusal(of_one(URL, Some(&url), PATIENCE)).contains("the URL of a database"));
        assert!(refusal(of_map(&url, PATIENCE)).contains("GATEWAY_MAP"));
        for key in ["url", "listenUrl", "standbyUrls"] {
            let mut server = serde_json::json!({"name": "b", "url": URL});
            server[key] = match key {
                "standbyUrls" => serde_json::json!([URL, url]),
                _ => serde_json::json!(url),
            };
            let json = serde_json::json!([{"name": "a", "url": URL}, server]).to_string();
            assert!(refusal(of_several(&json, PATIENCE)).contains("server b"), "{key}");
        }
    }

    #[test]
    fn servers_that_cannot_be_are_refused_without_their_passwords() {
        let of = |servers: &str| of_several(&servers.replace("URL", URL), PATIENCE);
        for (servers, reason) in [
            (r#"["URL"]"#, "line 1, column 42"),
            (r#"[{"name": "a", "url": "URL", "standby": "URL"}]"#, "\"standbyUrls\""),
            (r#"[{"url": "URL"}]"#, "\"name\""),
            ("URL", "JSON array"),
            ("[]", "no server"),
            (
                r#"[{"name": "a", "url": "URL"}, {"name": "a", "url": "URL"}]"#,
                "two servers named a",
            ),
            (r#"[{"name": "a", "url": "URL"}, {"name": "", "url": "URL"}]"#, "server 1"),
            (r#"[{"name": "a b", "url": "URL"}]"#, "server 0"),
        ] {
            let refusal = refusal(of(servers));
            assert!(refusal.contains(reason), "{refusal}");
        }
        let servers =
            r#"[{"name": "a", "url": "URL"}, {"name": "b", "url": "URL", "standbyUrls": ["URL"]}]"#;
        let known = of(servers).unwrap().into_iter().map(|at| (at.name, at.standbys.len()));
        assert!(known.eq([(Some("a".to_owned()), 0), (Some("b".to_owned()), 1)]));
    }

    #[test]
    fn what_waits_on_a_machine_that_has_gone_ends() {
        for (patience, seconds) in [(10.0, 10), (0.5, 1)] {
            let config = calling(URL, Duration::from_secs_f64(patience)).unwrap();
            let seconds = Duration::from_secs(seconds);
            assert_eq!(config.get_tcp_user_timeout(), Some(&seconds));
            assert_eq!(config.get_keepalives_idle(), seconds);
            assert_eq!(config.get_keepalives_interval(), Some(seconds));
            assert!(config.get_keepalives());
        }
    }
}
