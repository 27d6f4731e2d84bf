//! Who issues tokens, and publishes its keys.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{
    CertifiedKey, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, generate_simple_self_signed,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// A key pair with its name.
pub struct Key {
    pub name: String,
    pub algorithm: Algorithm,
    pub pair: KeyPair,
    key: EncodingKey,
}

impl Key {
    pub fn new(name: &str, algorithm: Algorithm) -> Key {
        let kind = match algorithm {
            Algorithm::RS256 => &PKCS_RSA_SHA256,
            _ => &PKCS_ECDSA_P256_SHA256,
        };
        let pair = KeyPair::generate_for(kind).unwrap();
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        Key { name: name.to_owned(), algorithm, pair, key: key.unwrap() }
    }

    pub fn public(&self) -> Value {
        let mut public = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        public.common.key_id = Some(self.name.clone());
        serde_json::to_value(public).unwrap()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.name.clone()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }
}

pub fn set_of(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>()}).to_string()
}

pub fn sign_by_secret(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// Seconds since 1970, so many from now.
pub fn in_seconds(seconds: i64) -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds
}

/// Ann's claims with these changes; null takes one away.
pub fn claims(changes: Value) -> Value {
    let all = json!({"sub": "ann", "exp": in_seconds(600), "aud": "sync", "iss": "login"});
    let mut all: BTreeMap<String, Value> = serde_json::from_value(all).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        all.insert(name.clone(), value.clone());
    }
    all.retain(|_, value| !value.is_null());
    json!(all)
}

/// Serves a set of keys over HTTP, or HTTPS.
pub struct Publisher {
    pub url: String,
    shown: Arc<Mutex<Option<String>>>,
    reads: Arc<AtomicUsize>,
}

impl Publisher {
    pub fn of(keys: &[&Key]) -> Publisher {
        Publisher::start(keys, None)
    }

    /// With a certificate of its own, which it returns (PEM).
    pub fn over_tls(keys: &[&Key]) -> (Publisher, String) {
        let names = ["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        (Publisher::start(keys, Some(Arc::new(config))), cert.pem())
    }

    fn start(keys: &[&Key], tls: Option<Arc<ServerConfig>>) -> Publisher {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{port}/keys");
        let (shown, reads) =
            (Arc::new(Mutex::new(Some(set_of(keys)))), Arc::<AtomicUsize>::default());
        let publisher = Publisher { url, shown: shown.clone(), reads: reads.clone() };
        thread::spawn(move || {
            for stream in listener.incoming() {
                reads.fetch_add(1, Ordering::SeqCst);
                let text = shown.lock().unwrap().clone();
                match &tls {
                    None => answer(stream.unwrap(), text),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls.clone()).unwrap();
                        answer(StreamOwned::new(connection, stream.unwrap()), text);
                    }
                }
            }
        });
        publisher
    }

    /// `None`: it is out of order.
    pub fn show(&self, keys: Option<&[&Key]>) {
        *self.shown.lock().unwrap() = keys.map(set_of);
    }

    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

fn answer(stream: impl Read + Write, text: Option<String>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if !stream.read_line(&mut line).is_ok_and(|length| length > 0) {
            return;
        }
    }
    let (status, text) = text.map_or(("503 Down", String::new()), |text| ("200 OK", text));
    let length = text.len();
    let _ = write!(
        stream.get_mut(),
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
    );
}
