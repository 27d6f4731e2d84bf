//! TLS to the database, and to who publishes the keys of tokens.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Encrypts connections where `sslmode` requires it, and then only to a server whose
/// certificate is valid for its name: by this file, or else by the system's roots.
pub fn to_database(mode: SslMode, roots: Option<&Path>) -> Result<MakeRustlsConnect> {
    let mut trusted = RootCertStore::empty();
    if mode == SslMode::Require {
        let certificates = match roots {
            Some(file) => CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect)
                .with_context(|| format!("cannot read {}", file.display()))?,
            None => of_system(),
        };
        if trusted.add_parsable_certificates(certificates).0 == 0 {
            bail!("no root certificates for TLS to the database: set GATEWAY_DATABASE_CA");
        }
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

pub fn of_system() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
