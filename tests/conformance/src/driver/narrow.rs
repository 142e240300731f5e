//! A connection on which next to nothing may be on its way, so that what is not read stays with the
//! driver.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use cofferdam_gateway::transport;
use cofferdam_proto::compute::v1::compute_driver_client::ComputeDriverClient;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::Driver;
use crate::case::Stop;
use crate::suite::Suite;

/// Of one stream: a few messages of a watch.
const WINDOW_BYTES: u32 = 1024;

pub(crate) type NarrowClient = ComputeDriverClient<Narrow>;

/// The connection. It ends with the last call on it, or with the suite.
#[derive(Debug, Clone)]
pub(crate) struct Narrow(SendRequest<Body>);

impl Driver {
    /// Another connection of this driver's gateway, with a handshake, for calls that nobody reads.
    pub(crate) async fn narrow(&self) -> Result<NarrowClient, Stop> {
        let socket = self.suite.socket();
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Stop::failed(format!("{what} on a second connection: {error}"))
        };
        let stream = transport::connect(&socket)
            .await
            .map_err(|error| failed("connecting", &error))?;
        let connection = Narrow::open(&self.suite, stream).await;
        let mut client = ComputeDriverClient::new(
            connection.map_err(|error| failed("beginning HTTP/2", &error))?,
        );
        client
            .handshake(self.hello(&self.gateway_id))
            .await
            .map_err(|status| failed("the handshake", &status))?;
        Ok(client)
    }
}

impl Narrow {
    async fn open(suite: &Suite, stream: tokio::net::UnixStream) -> Result<Self, hyper::Error> {
        let (sender, connection) = Builder::new(Tasks(suite.tasks().clone()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let cancel = suite.cancel().child_token();
        suite.tasks().spawn(async move {
            // How it ends its calls tell.
            let _ = cancel.run_until_cancelled(connection).await;
        });
        Ok(Self(sender))
    }
}

impl tower::Service<http::Request<Body>> for Narrow {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        *request.uri_mut() = absolute(request.uri());
        Box::pin(self.0.send_request(request))
    }
}

/// HTTP/2 wants a scheme and an authority.
fn absolute(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::from_static("localhost"));
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

/// Gives hyper's tasks a parent.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
