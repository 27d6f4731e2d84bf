//! JSON Web Tokens: who makes a request, as somebody else has signed it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::config::seconds;
use crate::failure::Failure;
use crate::keys::KeySet;

/// How far the clocks of issuer and gateway may be apart, in seconds.
const LEEWAY: u64 = 10;

#[derive(clap::Args)]
pub struct Options {
    /// Secret of tokens signed by HS256. With it or with keys, tokens name the users
    #[arg(long, env = "GATEWAY_JWT_SECRET", value_name = "SECRET", hide_env_values = true)]
    jwt_secret: Option<String>,

    /// File or URL of the keys (JWKS) of tokens signed by RS256 or ES256
    #[arg(long, env = "GATEWAY_JWT_KEYS", value_name = "FILE|URL", conflicts_with = "jwt_secret")]
    jwt_keys: Option<String>,

    /// Seconds between two readings of the keys for the sake of an unknown one; above 0
    #[arg(long, env = "GATEWAY_JWT_KEYS_INTERVAL", value_name = "SECONDS", default_value = "60",
        value_parser = seconds)]
    jwt_keys_interval: Duration,

    /// The iss that a token must have
    #[arg(long, env = "GATEWAY_JWT_ISSUER", value_name = "ISSUER")]
    jwt_issuer: Option<String>,

    /// The aud that a token must have
    #[arg(long, env = "GATEWAY_JWT_AUDIENCE", value_name = "AUDIENCE")]
    jwt_audience: Option<String>,

    /// Claim that names the user
    #[arg(long, env = "GATEWAY_JWT_USER_CLAIM", value_name = "NAME", default_value = "sub")]
    jwt_user_claim: String,

    /// Cookie that holds the token where the Authorization header is missing
    #[arg(long, env = "GATEWAY_JWT_COOKIE", value_name = "NAME")]
    jwt_cookie: Option<String>,
}

/// Verifies the tokens of requests.
pub struct Tokens {
    keys: Keys,
    /// What holds for tokens of any key; the algorithm is the key's.
    issuer: Option<String>,
    audience: Option<String>,
    user_claim: String,
    cookie: Option<String>,
}

enum Keys {
    Secret(DecodingKey),
    Set(KeySet),
}

/// A user, and until when its token holds.
pub struct Verified {
    pub user: String,
    pub until: Instant,
}

impl Tokens {
    /// `None` where a header names the users.
    pub fn new(options: &Options) -> Result<Option<Tokens>> {
        let keys = match (&options.jwt_secret, &options.jwt_keys) {
            (Some(secret), None) if secret.len() < 32 => {
                bail!("GATEWAY_JWT_SECRET must have at least 32 bytes")
            }
            (Some(secret), _) => Keys::Secret(DecodingKey::from_secret(secret.as_bytes())),
            (None, Some(source)) => Keys::Set(KeySet::new(source, options.jwt_keys_interval)),
            (None, None) => return Ok(None),
        };
        Ok(Some(Tokens {
            keys,
            issuer: options.jwt_issuer.clone(),
            audience: options.jwt_audience.clone(),
            user_claim: options.jwt_user_claim.clone(),
            cookie: options.jwt_cookie.clone(),
        }))
    }

    /// Reads keys for as long as the gateway runs.
    pub async fn keep_keys(&self) {
        if let Keys::Set(set) = &self.keys {
            set.keep().await;
        }
    }

    /// `None` if the request has no token.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<Option<Verified>, Failure> {
        let Some(token) = self.token(headers)? else { return Ok(None) };
        let header = decode_header(token).map_err(refusal)?;
        let (algorithm, key) = match &self.keys {
            Keys::Secret(key) => (Algorithm::HS256, key.clone()),
            Keys::Set(set) => set.find(header.kid.as_deref()).await?,
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.validate_aud = self.audience.is_some();
        let mut required = vec!["exp"];
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let claims =
            decode::<Map<String, Value>>(token, &key, &validation).map_err(refusal)?.claims;
        let user = match claims.get(&self.user_claim) {
            Some(Value::String(user)) if !user.is_empty() => user.clone(),
            _ => return Err(invalid(format!("It names no user: {} is missing.", self.user_claim))),
        };
        Ok(Some(Verified { user, until: until(claims.get("exp")) }))
    }

    fn token<'h>(&self, headers: &'h HeaderMap) -> Result<Option<&'h str>, Failure> {
        if let Some(value) = headers.get(AUTHORIZATION) {
            let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
            return match bearer {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                    Ok(Some(token.trim()))
                }
                _ => Err(invalid("The Authorization header is not a Bearer token.".into())),
            };
        }
        let Some(cookie) = &self.cookie else { return Ok(None) };
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|value| value.split(';'));
        let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
        Ok(pairs.find(|(name, _)| name == cookie).map(|(_, token)| token))
    }
}

/// On the gateway's clock, which does not step.
fn until(exp: Option<&Value>) -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let exp = exp.and_then(Value::as_f64).unwrap_or(0.0) + LEEWAY as f64;
    let left = Duration::try_from_secs_f64(exp).unwrap_or_default().saturating_sub(now);
    let now = Instant::now();
    now.checked_add(left).unwrap_or(now)
}

pub fn invalid(detail: String) -> Failure {
    Failure::token_refused(detail)
}

fn refusal(error: Error) -> Failure {
    let detail = match error.kind() {
        ErrorKind::ExpiredSignature => "It has expired.".into(),
        ErrorKind::ImmatureSignature => "It does not hold yet.".into(),
        ErrorKind::InvalidIssuer => "Its iss is another one.".into(),
        ErrorKind::InvalidAudience => "Its aud is another one.".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("It has no {claim}."),
        ErrorKind::InvalidSignature => "Its signature is wrong.".into(),
        ErrorKind::InvalidAlgorithm => "Its algorithm is not that of the key.".into(),
        _ => "It is malformed.".into(),
    };
    invalid(detail)
}
