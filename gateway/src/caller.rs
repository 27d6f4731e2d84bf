//! Who a request speaks for: the user of its token, or in the header that the
//! authentication in front sets.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use tokio::time::Instant;

use crate::config::Config;
use crate::failure::Failure;
use crate::server::Gateway;

/// Who makes a request.
#[derive(Clone)]
pub struct Caller {
    pub gateway: Arc<Gateway>,
    /// `None` for a trusted one.
    pub user: Option<String>,
    /// When its authentication ends, if that is known.
    pub until: Option<Instant>,
}

impl FromRequestParts<Arc<Gateway>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        gateway: &Arc<Gateway>,
    ) -> Result<Caller, Failure> {
        let (user, until) = match &gateway.tokens {
            None => (user(&parts.headers, &gateway.config)?, None),
            Some(tokens) => match tokens.verify(&parts.headers).await? {
                Some(verified) => (Some(verified.user), Some(verified.until)),
                None if gateway.config.trusted => (None, None),
                None => return Err(Failure::user_required("There is no token.".into())),
            },
        };
        Ok(Caller { gateway: gateway.clone(), user, until })
    }
}

impl Caller {
    /// Calls a function that is of no workspace: on all servers.
    pub async fn call_all(&self, sql: &str) -> Result<String, Failure> {
        self.gateway.servers.call_all(self.user.as_deref(), sql).await
    }
}

fn user(headers: &HeaderMap, config: &Config) -> Result<Option<String>, Failure> {
    let name = &config.user_header;
    let mut values = headers.get_all(name).iter();
    let user = match (values.next(), values.next()) {
        (Some(user), None) => user,
        (None, _) if config.trusted => return Ok(None),
        (None, _) => return Err(Failure::user_required(format!("The header {name} is missing."))),
        // One of the two came with the request and was not removed.
        _ => return Err(Failure::user_required(format!("The header {name} came twice."))),
    };
    match std::str::from_utf8(user.as_bytes()) {
        // sync_ext takes an empty user for none, and trusts such a caller.
        Ok("") | Err(_) => Err(Failure::user_required(format!("The header {name} is invalid."))),
        Ok(user) => Ok(Some(user.to_owned())),
    }
}
