//! TLS to an engine: its authority, and our certificate if it wants one.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsConnector;

use super::DialError;
use crate::endpoint::TlsFiles;

pub(super) fn connector(files: &TlsFiles) -> Result<TlsConnector, DialError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(&files.ca)? {
        roots
            .add(authority)
            .map_err(|error| problem(&files.ca, error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| problem(&files.ca, error))?
        .with_root_certificates(roots);
    let config = match &files.client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| problem(key, error))?;
            config
                .with_client_auth_cert(chain, secret)
                .map_err(|error| problem(certificate, error))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| problem(path, error))?;
    let all: Result<Vec<_>, _> = all.collect();
    let all = all.map_err(|error| problem(path, error))?;
    match all.is_empty() {
        true => Err(problem(path, "holds no certificate")),
        false => Ok(all),
    }
}

fn problem(path: &Path, problem: impl ToString) -> DialError {
    DialError::Tls {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}
