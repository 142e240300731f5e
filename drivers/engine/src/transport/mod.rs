//! HTTP/1.1 to an engine: pooled connections, with the agreed API version in every path.
//!
//! ```text
//!   client ─► Transport ─► pool ─► dial: unix · tcp · TLS · ssh
//! ```
//!
//! An engine answers a path without a version as its newest self; so there is always one.

mod dial;
mod tls;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::endpoint::Endpoint;
use dial::Dialer;

pub(crate) use dial::DialError;

/// Engines close idle connections after a minute or more; ours go before.
const IDLE_MAX: Duration = Duration::from_secs(20);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Carries requests to one engine. Cheap to clone; all clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    client: Client<Dialer, Body>,
    /// "/v1.41", once it is agreed.
    version: Arc<OnceLock<String>>,
}

impl Transport {
    pub(crate) fn new(endpoint: &Endpoint, client: &str) -> Result<Self, DialError> {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .build(Dialer::new(endpoint, client)?);
        Ok(Self {
            client,
            version: Arc::default(),
        })
    }

    /// From here on every request is of this version of the API.
    pub(crate) fn agree(&self, major: u32, minor: u32) {
        let _ = self.version.set(format!("/v{major}.{minor}"));
    }

    /// Sends one request; resolves when the head of the answer is there.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, BoxError> {
        let (mut head, body) = request.into_parts();
        head.uri = self.address(&head.uri)?;
        head.headers.remove(http::header::HOST);
        head.headers
            .insert(http::header::HOST, http::HeaderValue::from_static("engine"));
        Ok(self.client.request(Request::from_parts(head, body)).await?)
    }

    /// As the pool and the engine want it: a fixed authority, and the version before the path.
    fn address(&self, uri: &Uri) -> Result<Uri, BoxError> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let is_versioned = path
            .strip_prefix("/v")
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
        let version = match self.version.get() {
            Some(version) if !is_versioned => version.as_str(),
            _ => "",
        };
        Ok(Uri::builder()
            .scheme("http")
            .authority("engine")
            .path_and_query(format!("{version}{path}"))
            .build()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_agreed_version_is_in_every_path() {
        let transport = Transport::new(&Endpoint::Unix("/nowhere".into()), "engine").unwrap();
        let address = |text: &str| {
            let uri: Uri = text.parse().unwrap();
            transport.address(&uri).unwrap().to_string()
        };
        assert_eq!(address("http://x/version"), "http://engine/version");
        transport.agree(1, 41);
        assert_eq!(address("/info?a=b"), "http://engine/v1.41/info?a=b");
        assert_eq!(
            address("/volumes/create"),
            "http://engine/v1.41/volumes/create"
        );
        assert_eq!(
            address("/v4.0.0/libpod/info"),
            "http://engine/v4.0.0/libpod/info"
        );
    }
}
