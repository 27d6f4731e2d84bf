//! The public keys of tokens (JWKS), from a file or over HTTP.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::failure::Failure;
use crate::tls;
use crate::token::invalid;

/// A key that was taken out of the set holds at most this long.
const AGE: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BYTES: u64 = 1 << 20;

/// Each with the one algorithm that it is used with: a token does not choose.
type Keys = HashMap<Option<String>, (Algorithm, DecodingKey)>;

pub struct KeySet {
    source: String,
    interval: Duration,
    keys: RwLock<Arc<Keys>>,
    /// When they were read last, or would have been; held while they are read.
    read_at: Mutex<Option<Instant>>,
}

impl KeySet {
    pub fn new(source: &str, interval: Duration) -> KeySet {
        let (source, keys) = (source.to_owned(), RwLock::default());
        KeySet { source, interval, keys, read_at: Mutex::new(None) }
    }

    /// The key of that name, or the only one if the token names none. An unknown name may
    /// be a new key's: the keys are read again, but not as often as anybody makes up names.
    pub async fn find(&self, name: Option<&str>) -> Result<(Algorithm, DecodingKey), Failure> {
        if let Some(key) = self.known(name) {
            return Ok(key);
        }
        let mut read_at = self.read_at.lock().await;
        // Read meanwhile, it may be there.
        if let Some(key) = self.known(name) {
            return Ok(key);
        }
        if read_at.is_none_or(|at| at.elapsed() >= self.interval) {
            self.read().await;
            *read_at = Some(Instant::now());
        }
        match self.known(name) {
            Some(key) => Ok(key),
            None if self.keys().is_empty() => Err(Failure::no_keys()),
            None => Err(invalid("Its key is unknown.".into())),
        }
    }

    /// Reads them from time to time.
    pub async fn keep(&self) {
        loop {
            let mut read_at = self.read_at.lock().await;
            self.read().await;
            *read_at = Some(Instant::now());
            drop(read_at);
            let is_empty = self.keys().is_empty();
            sleep(if is_empty { AGE.min(self.interval) } else { AGE }).await;
        }
    }

    fn known(&self, name: Option<&str>) -> Option<(Algorithm, DecodingKey)> {
        let keys = self.keys();
        let key = match name {
            Some(name) => keys.get(&Some(name.to_owned())),
            None if keys.len() == 1 => keys.values().next(),
            None => None,
        };
        key.cloned()
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// If that fails, the keys stay as they are.
    async fn read(&self) {
        let source = self.source.clone();
        let text = spawn_blocking(move || fetch(&source)).await.map_err(Into::into).flatten();
        match text.and_then(|text| parse(&text)) {
            Ok(keys) => {
                info!(keys = keys.len(), "keys read");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(why) => warn!(reason = format!("{why:#}"), "no keys"),
        }
    }
}

fn fetch(source: &str) -> Result<String> {
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return std::fs::read_to_string(source).with_context(|| format!("cannot read {source}"));
    }
    let roots = tls::of_system().into_iter();
    let roots = roots.map(|root| Certificate::from_der(&root).to_owned());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::from(roots.collect::<Vec<_>>()))
        .unversioned_rustls_crypto_provider(tls::provider())
        .build();
    let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).tls_config(tls).build();
    let mut answer = config.new_agent().get(source).call()?;
    Ok(answer.body_mut().with_config().limit(MAX_BYTES).read_to_string()?)
}

/// What is for another use, or of another kind, is passed over.
fn parse(text: &str) -> Result<Keys> {
    let set: JwkSet = serde_json::from_str(text).context("not a set of keys")?;
    let keys = set.keys.iter().filter_map(|key| {
        let decoding = (algorithm(key)?, DecodingKey::from_jwk(key).ok()?);
        Some((key.common.key_id.clone(), decoding))
    });
    Ok(keys.collect())
}

fn algorithm(key: &Jwk) -> Option<Algorithm> {
    let algorithm = match &key.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(of) if of.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        _ => return None,
    };
    let is_named =
        key.common.key_algorithm.is_none_or(|name| name.to_string() == format!("{algorithm:?}"));
    let is_for_signatures =
        key.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
    (is_named && is_for_signatures).then_some(algorithm)
}
