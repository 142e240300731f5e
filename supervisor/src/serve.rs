//! One session: the roles have flipped, and the supervisor serves gRPC over the stream.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cofferdam_proto::FRAME_BYTES_MAX;
use cofferdam_proto::supervisor::v1::supervisor_server::SupervisorServer;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::Service as _;

use crate::callback::Wire;
use crate::core::Core;
use crate::service::SupervisorService;

/// Bounds what an unread stream can hold in memory on either side.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// All streams may stall at once, and calls still get through. This is a limit, not a buffer.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX;
const STREAMS_MAX: u32 = 1024;
/// Per stream: what has been produced, and not yet been let through by the window.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// On a relayed stream a gateway that is gone shows only by its silence.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves until the stream ends.
pub(crate) async fn serve(
    wire: Wire,
    core: &Arc<Core>,
    is_relayed: bool,
    on_first_call: impl Fn() + Send + Sync + 'static,
) -> Result<(), hyper::Error> {
    let service = SupervisorServer::new(SupervisorService::new(Arc::clone(core)))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let called = AtomicBool::new(false);
    let handler = service_fn(move |request: Request<Incoming>| {
        if !called.swap(true, Ordering::Relaxed) {
            on_first_call();
        }
        let mut service = service.clone();
        async move {
            let response: Result<Response<Body>, Infallible> = service.call(request).await;
            response
        }
    });
    let mut builder = http2::Builder::new(Spawner(core.tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        // The peer has proven to be the gateway. That it cancels many calls is no attack.
        .max_pending_accept_reset_streams(STREAMS_MAX as usize)
        .max_local_error_reset_streams(None);
    if is_relayed {
        builder
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    }
    builder.serve_connection(TokioIo::new(wire), handler).await
}

/// Spawns a session's streams as tasks of the supervisor.
#[derive(Clone, Debug)]
struct Spawner(TaskTracker);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
