//! Connections: accepted as in the SDK's own server, and met as the script says.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::compute::v1::compute_driver_server::ComputeDriverServer;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::call::Call;
use super::platform::Shared;
use super::script::Door;
use super::service::Faulty;
use crate::run::{Listeners, Peers, http2, routes};
use crate::server::Connection;
use crate::spec::bounds;

const HTTP1: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";

/// After an error of accept(2), such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves until `stop`, then ends all sandboxes.
pub(super) async fn serve(
    live: Shared,
    listeners: Listeners,
    peers: Peers,
    stop: CancellationToken,
) {
    let faulty = Faulty::new(Arc::clone(&live));
    // What is too large is made to be sent.
    let service = ComputeDriverServer::new(faulty)
        .max_decoding_message_size(bounds::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let accepting = Accepting {
        routes: routes(service).await,
        live: Arc::clone(&live),
        peers,
        stop: stop.clone(),
        tasks: TaskTracker::new(),
    };
    let Listeners { sockets, own } = listeners;
    for socket in sockets {
        accepting.tasks.spawn(accepting.clone().run(socket));
    }
    stop.cancelled().await;
    drop(own);
    live.cut();
    accepting.tasks.close();
    live.platform().end().await;
    accepting.tasks.wait().await;
}

#[derive(Clone)]
struct Accepting {
    routes: Routes,
    live: Shared,
    peers: Peers,
    stop: CancellationToken,
    /// Parent of accept loops, connections, and the calls on them.
    tasks: TaskTracker,
}

impl Accepting {
    async fn run(self, socket: UnixListener) {
        while let Some(accepted) = self.stop.run_until_cancelled(socket.accept()).await {
            match accepted {
                Ok((stream, _)) if self.peers.allow(&stream) => {
                    self.live.book().connected();
                    // Taken now: what is cut from here on is cut for this one as well.
                    let cut = self.live.connection();
                    self.tasks.spawn(self.clone().meet(stream, cut));
                }
                // Closed by being dropped.
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    async fn meet(self, stream: UnixStream, cut: CancellationToken) {
        let until_cut = cut.clone();
        let met = async {
            match self.live.door() {
                Door::Open => self.serve(stream, cut).await,
                Door::Silent => until_cut.cancelled().await,
                Door::Closing => {}
                Door::Garbage => say(stream, &nonsense()).await,
                Door::Http1 => say(stream, HTTP1).await,
            }
        };
        until_cut.run_until_cancelled(met).await;
    }

    async fn serve(&self, stream: UnixStream, cut: CancellationToken) {
        let connection = Connection::new();
        let service = hyper::service::service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&connection));
            let call = Call {
                live: Arc::clone(&self.live),
                routes: self.routes.clone(),
                cut: cut.clone(),
            };
            call.answer(request)
        });
        let served = http2(&self.tasks).serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection has ended");
        }
    }
}

/// Says it, and listens to nothing until the other side gives up.
async fn say(mut stream: UnixStream, bytes: &[u8]) {
    let said: io::Result<()> = async {
        stream.write_all(bytes).await?;
        while stream.read(&mut [0; 1024]).await? > 0 {}
        Ok(())
    }
    .await;
    if let Err(error) = said {
        tracing::debug!(%error, "nobody listens");
    }
}

/// No protocol's first bytes.
fn nonsense() -> Vec<u8> {
    (0..=255).rev().cycle().take(16 * 1024).collect()
}
