//! Connections: accepted, checked, served over HTTP/2, drained.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::FRAME_BYTES_MAX;
use cofferdam_proto::compute::v1::compute_driver_server::{
    ComputeDriver as Service, ComputeDriverServer,
};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use super::{Event, Listeners, Peers};
use crate::driver::ComputeDriver;
use crate::server::{Connection, Server};

/// Connections at a time: a few gateways, a conformance run and a curious operator.
const CONNECTIONS_MAX: usize = 64;

/// Calls at a time on one connection: above any gateway's sandboxes, below what hurts.
const STREAMS_MAX: u32 = 4096;

/// Bytes on their way in one call. Messages are small; console and images do not need more.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes on their way in all calls of a connection, so that a few unread streams block no other.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// A peer that does not answer for so long is gone, or its machine is stopped.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// After an error of accept(2), such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves a driver until `stop`, then drains for at most `drain_max` or until `force`.
pub async fn serve<D: ComputeDriver>(
    server: Server<D>,
    listeners: Listeners,
    peers: Peers,
    stop: impl Future<Output = ()> + Send,
    drain_max: Duration,
    force: impl Future<Output = ()> + Send,
) {
    let door = Door {
        routes: routes(server.clone().into_service()).await,
        peers,
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        closing: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let Listeners { sockets, own } = listeners;
    for socket in sockets {
        door.tasks.spawn(door.clone().accept(socket));
    }
    stop.await;
    tracing::info!("draining");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // The name goes first, so that a successor can have it.
    drop(own);
    drain(&server, &door, drain_max, force).await;
}

/// The contract, with health and reflection beside it.
pub(crate) async fn routes<S: Service>(service: ComputeDriverServer<S>) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ComputeDriverServer<S>>().await;
    let routes = Routes::new(service).add_service(health_service);
    with_reflection(routes).prepare()
}

async fn drain<D: ComputeDriver>(
    server: &Server<D>,
    door: &Door,
    drain_max: Duration,
    force: impl Event,
) {
    let context = server.context();
    // Ends streams and the driver's background tasks; calls with one answer go on.
    context.shutdown.cancel();
    door.closing.cancel();
    door.tasks.close();
    context.tasks.close();
    let drained = async {
        door.tasks.wait().await;
        server.driver().shutdown().await;
        context.tasks.wait().await;
    };
    tokio::select! {
        ended = timeout(drain_max, drained) => if ended.is_err() {
            tracing::warn!("not everything has ended in time; it is dropped");
        },
        () = force => tracing::warn!("told twice to end; what is pending is dropped"),
    }
}

/// What accepts and serves connections. Clones are one door.
#[derive(Clone)]
struct Door {
    routes: Routes,
    peers: Peers,
    places: Arc<Semaphore>,
    closing: CancellationToken,
    /// Parent of accept loops, connections, and the calls on them.
    tasks: TaskTracker,
}

impl Door {
    async fn accept(self, socket: UnixListener) {
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = self.accept_one(&socket) => accepted,
            };
            match accepted {
                Ok((stream, place)) if self.peers.allow(&stream) => {
                    self.tasks.spawn(self.clone().serve(stream, place));
                }
                // Closed by being dropped.
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Waits for a place first: beyond that, connections wait in the kernel's queue.
    async fn accept_one(
        &self,
        socket: &UnixListener,
    ) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let (stream, _) = socket.accept().await?;
        Ok((stream, place))
    }

    async fn serve(self, stream: UnixStream, _place: OwnedSemaphorePermit) {
        let connection = Connection::new();
        let routes = self.routes.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&connection));
            let mut routes = routes.clone();
            async move {
                let response: Result<hyper::Response<Body>, Infallible> =
                    routes.call(request).await;
                response
            }
        });
        let served = http2(&self.tasks).serve_connection(TokioIo::new(stream), service);
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = self.closing.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            // A gateway that is killed looks like this.
            tracing::debug!(%error, "a connection has ended");
        }
    }
}

/// How connections are served, with their calls as children of `tasks`.
pub(crate) fn http2(tasks: &TaskTracker) -> http2::Builder<Spawner> {
    let mut builder = http2::Builder::new(Spawner(tasks.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}

/// Calls are children of the same parent as their connection.
#[derive(Clone)]
pub(crate) struct Spawner(TaskTracker);

impl<F> Executor<F> for Spawner
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

fn with_reflection(routes: Routes) -> Routes {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(cofferdam_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("cofferdam.compute.v1.ComputeDriver")
        .with_service_name("grpc.health.v1.Health");
    match builder.build_v1() {
        Ok(reflection) => routes.add_service(reflection),
        Err(error) => {
            tracing::warn!(%error, "there is no server reflection");
            routes
        }
    }
}
