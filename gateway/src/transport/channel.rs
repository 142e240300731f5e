//! One HTTP/2 connection as a service for generated clients.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cofferdam_proto::FRAME_BYTES_MAX;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::tap::{PeerKind, Tap, TapState};

/// Bytes of one stream that may be on their way. Bounds what a reader that does not read can hold
/// in the gateway's memory; larger ones bring nothing on a local socket.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes of all streams together. At least stream window × streams that may stall at once, else a
/// few unread streams block every other call.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// What this side opens before the peer has stated its own limit.
const STREAMS_MAX: usize = 1024;

/// How a connection is kept.
#[derive(Debug)]
pub struct ChannelOptions<'a> {
    /// `None`: the user has its own way of noticing a dead peer.
    pub keep_alive: Option<KeepAlive>,
    /// Parent of the connection's tasks.
    pub tasks: &'a TaskTracker,
    /// Cuts the connection.
    pub cancel: CancellationToken,
}

/// Pings on the HTTP/2 level.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    pub interval: Duration,
    /// A ping without an answer for so long ends the connection.
    pub timeout: Duration,
}

/// One connection. Cheap to clone; calls fail once it has ended.
#[derive(Debug, Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    state: Arc<TapState>,
}

impl Channel {
    /// Begins HTTP/2 as the client. Does not wait for the peer: the first call shows whether there
    /// is one.
    pub async fn open<S>(stream: S, options: ChannelOptions<'_>) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::open_with_window(stream, options, STREAM_WINDOW_BYTES).await
    }

    /// As `open`, with so much that may be on its way of each stream.
    pub async fn open_with_window<S>(
        stream: S,
        options: ChannelOptions<'_>,
        stream_window_bytes: u32,
    ) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let silence = options.keep_alive.map(|keep_alive| keep_alive.timeout);
        let state = Arc::new(TapState::new(options.cancel, silence));
        let stream = TokioIo::new(Tap::new(stream, state.clone()));
        let mut builder = Builder::new(TrackedExecutor(options.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(stream_window_bytes)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .initial_max_send_streams(STREAMS_MAX);
        if let Some(keep_alive) = options.keep_alive {
            builder
                .keep_alive_interval(keep_alive.interval)
                .keep_alive_timeout(keep_alive.timeout)
                .keep_alive_while_idle(true);
        }
        let (sender, connection) = builder.handshake(stream).await?;
        let ending = state.clone();
        options.tasks.spawn(async move {
            let result = connection.await;
            ending.end(result.err());
        });
        Ok(Self { sender, state })
    }

    /// Completes when the connection has ended, for whatever reason.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.state.ended().clone().cancelled_owned()
    }

    /// No call can succeed any more.
    pub fn is_closed(&self) -> bool {
        self.state.ended().is_cancelled() || self.sender.is_closed()
    }

    /// Ends the connection, and with it every call.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// What the first bytes from the peer look like.
    pub fn peer_kind(&self) -> PeerKind {
        self.state.peer_kind()
    }

    /// The connection ended because the peer did not answer keep-alive pings.
    pub fn was_silent(&self) -> bool {
        self.state.was_silent()
    }

    /// Why the connection ended, for people; empty while it has not.
    pub fn end_reason(&self) -> String {
        self.state.reason()
    }
}

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        *request.uri_mut() = absolute(request.uri());
        Box::pin(self.sender.send_request(request))
    }
}

/// HTTP/2 wants a scheme and an authority; on a socket of our own any will do.
fn absolute(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::from_static("localhost"));
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

/// Gives hyper's tasks a parent. They end with the connection, which `cancel` cuts.
#[derive(Clone)]
struct TrackedExecutor(TaskTracker);

impl<F> hyper::rt::Executor<F> for TrackedExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
