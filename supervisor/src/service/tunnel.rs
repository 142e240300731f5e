//! Tunnels: a connection inside the sandbox as a call.
//!
//! The two directions end independently. The caller ends its own by ending its requests; the target's
//! end is told by an empty `data`, since the responses can only end with the whole call.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cofferdam_proto::supervisor::v1 as wire;
use cofferdam_proto::supervisor::v1::tunnel_request::Part as RequestPart;
use cofferdam_proto::supervisor::v1::tunnel_response::Part;
use cofferdam_proto::supervisor::v1::tunnel_target::Target;
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::files::step;
use crate::core::Core;
use crate::files::{FileError, connectable};

pub(super) type TunnelStream = BoxStream<'static, Result<wire::TunnelResponse, Status>>;

const PIECE_BYTES: usize = 64 * 1024;

type Reading = Box<dyn AsyncRead + Send + Unpin>;
type Writing = Box<dyn AsyncWrite + Send + Unpin>;

pub(super) async fn open(
    core: &Arc<Core>,
    mut requests: Streaming<wire::TunnelRequest>,
) -> Result<TunnelStream, Status> {
    let first = requests.message().await?.and_then(|request| request.part);
    let target = match first {
        Some(RequestPart::Open(target)) => target.target,
        _ => return Err(Status::invalid_argument("part: the first must be open")),
    };
    let (reading, writing) = match target {
        Some(Target::Port(port)) => connect_port(port).await?,
        Some(Target::UnixPath(path)) => connect_path(core, path).await?,
        None => return Err(Status::invalid_argument("open.target: is missing")),
    };
    let uploading = AbortOnDropHandle::new(core.tasks.spawn(upload(requests, writing)));
    let opened = futures_util::stream::iter([Ok(Part::Opened(wire::TunnelOpened {}))]);
    let down = Down {
        reading: Some(reading),
        buffer: BytesMut::new(),
        uploading: Some(uploading),
    };
    let parts = opened.chain(unfold(down, Down::next));
    Ok(parts
        .map(|part| Ok(wire::TunnelResponse { part: Some(part?) }))
        .boxed())
}

async fn connect_port(port: u32) -> Result<(Reading, Writing), Status> {
    let port = match u16::try_from(port) {
        Ok(port @ 1..) => port,
        _ => {
            return Err(Status::invalid_argument(
                "open.port: 1 to 65,535 are possible",
            ));
        }
    };
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let stream = match TcpStream::connect(v4).await {
        Ok(stream) => stream,
        // The first error is the one that says more: ::1 is often not there at all.
        Err(error) => TcpStream::connect(v6).await.map_err(|_| {
            Status::unavailable(format!(
                "nothing listens on port {port} of the sandbox: {error}"
            ))
        })?,
    };
    // Without it small messages wait for each other; that it fails costs only time.
    let _ = stream.set_nodelay(true);
    let (reading, writing) = stream.into_split();
    Ok((Box::new(reading), Box::new(writing)))
}

/// Connects with the workload's rights.
async fn connect_path(core: &Core, path: String) -> Result<(Reading, Writing), Status> {
    let workspace = core.workspace.clone();
    let name = path.clone();
    let connect = move || -> Result<_, FileError> {
        let (_directory, path) = connectable(&workspace, &path)?;
        Ok(connect_socket(&path))
    };
    let connected = step(connect).await?;
    let stream = connected.and_then(UnixStream::from_std).map_err(|error| {
        let message = format!("cannot connect to {name:?} in the sandbox: {error}");
        match error.kind() {
            io::ErrorKind::PermissionDenied => Status::permission_denied(message),
            _ => Status::unavailable(message),
        }
    })?;
    let (reading, writing) = stream.into_split();
    Ok((Box::new(reading), Box::new(writing)))
}

/// Not blocking: where the listener's queue is full, that would hold the thread.
fn connect_socket(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// From the caller to the target, until the caller ends or the target takes no more.
async fn upload(mut requests: Streaming<wire::TunnelRequest>, mut writing: Writing) {
    loop {
        match requests.message().await {
            Ok(Some(request)) => {
                if let Some(RequestPart::Data(data)) = request.part
                    && writing.write_all(&data).await.is_err()
                {
                    return;
                }
            }
            // The caller has said all. The target may have closed already.
            Ok(None) => {
                let _ = writing.shutdown().await;
                return;
            }
            // Cut: an end here would make a part look like the whole. The other direction ends
            // with the same stream, and with it the connection.
            Err(_) => return std::future::pending().await,
        }
    }
}

/// From the target to the caller.
struct Down {
    reading: Option<Reading>,
    buffer: BytesMut,
    uploading: Option<AbortOnDropHandle<()>>,
}

impl Down {
    async fn next(mut self) -> Option<(Result<Part, Status>, Self)> {
        let Some(reading) = &mut self.reading else {
            // The call ends when the other direction has.
            if let Some(uploading) = self.uploading.take() {
                let uploading: JoinHandle<()> = uploading.detach();
                // It cannot fail but by a panic, which has been printed.
                let _ = uploading.await;
            }
            return None;
        };
        self.buffer.reserve(PIECE_BYTES);
        let part = match reading.read_buf(&mut self.buffer).await {
            Ok(0) => {
                self.reading = None;
                Ok(Part::Data(Bytes::new()))
            }
            Ok(_) => Ok(Part::Data(self.buffer.split().freeze())),
            Err(error) => {
                self.reading = None;
                self.uploading = None;
                Err(Status::aborted(format!(
                    "the connection in the sandbox broke: {error}"
                )))
            }
        };
        Some((part, self))
    }
}
