//! Finding and reaching a gateway over its Unix socket.

use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_proto::FRAME_BYTES_MAX;
use cofferdam_proto::gateway::v1::gateway_client::GatewayClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::cli::Global;
use crate::error::{CommandError, Kind};
use crate::places::{self, Place};

pub(crate) type Client = GatewayClient<Channel>;

/// Enough for one busy stream without waiting for window updates.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Room for many unread port forwards beside a busy stream.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A list page of a thousand sandboxes fits well.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// While a stream is open, a gateway that hangs is noticed as one that is gone.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// A gateway that has accepted a connection.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    stream: BlockingStream,
}

/// A place where no gateway answered.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) path: PathBuf,
    pub(crate) error: io::Error,
}

/// Looks at the socket that was named, or else at the usual places in turn.
pub(crate) fn find(global: &Global) -> Result<Found, Vec<Looked>> {
    let uid = rustix::process::geteuid().as_raw();
    let places = match global.named_gateway() {
        Some(path) => vec![Place::named(path)],
        None => places::usual(uid, std::env::var_os("XDG_RUNTIME_DIR")),
    };
    let mut looked = Vec::new();
    for place in places {
        let stream = place
            .check(uid)
            .and_then(|()| BlockingStream::connect(&place.socket));
        let path = place.socket;
        match stream {
            Ok(stream) => return Ok(Found { path, stream }),
            Err(error) => looked.push(Looked { path, error }),
        }
    }
    Err(looked)
}

/// A client of the gateway that runs, or an error that says where was looked.
pub(crate) fn client(global: &Global) -> Result<Client, CommandError> {
    match find(global) {
        Ok(found) => open(found),
        Err(looked) => Err(no_gateway(&looked)),
    }
}

/// A client that reconnects to the same socket by itself when it is used after a cut.
pub(crate) fn open(found: Found) -> Result<Client, CommandError> {
    let internal = |error: io::Error| CommandError::io("cannot use the gateway's socket", error);
    found.stream.set_nonblocking(true).map_err(internal)?;
    let first = UnixStream::from_std(found.stream).map_err(internal)?;
    Ok(client_of(found.path, Some(first)))
}

/// A client of a socket that nobody has connected to yet.
pub(crate) fn open_path(path: PathBuf) -> Client {
    client_of(path, None)
}

fn client_of(path: PathBuf, first: Option<UnixStream>) -> Client {
    let first = Arc::new(Mutex::new(first));
    let connector = service_fn(move |_: Uri| {
        let open = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let path = path.clone();
        async move {
            let stream = match open {
                Some(stream) => stream,
                None => UnixStream::connect(path).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The name never leaves this process: the connector ignores it.
    let channel = Endpoint::from_static("http://gateway.cofferdam")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .connect_with_connector_lazy(connector);
    GatewayClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// Says where no gateway was found, and what would help there.
pub(crate) fn no_gateway(looked: &[Looked]) -> CommandError {
    let denied = looked.iter().find(|place| place.is_denied());
    let hint = match denied {
        Some(place) => format!(
            "you may not use {}: `ls -l` on it shows which group may\nwith --gateway another socket \
             is used, with `cofferdam run --embedded` none is needed",
            place.path.display()
        ),
        None => "start one with `cofferdam-gateway`, or `systemctl start cofferdam-gateway`\n\
                 `cofferdam run` works without"
            .to_owned(),
    };
    CommandError::new(
        Kind::NoGateway,
        format!("none answers ({})", sentences(looked)),
    )
    .hint(hint)
}

/// Places with the same trouble share its words.
fn sentences(looked: &[Looked]) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for place in looked {
        let (path, why) = (place.path.display().to_string(), place.why());
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, paths)) => paths.push(path),
            None => groups.push((why, vec![path])),
        }
    }
    let texts: Vec<String> = groups
        .into_iter()
        .map(|(why, paths)| format!("{}: {why}", paths.join(", ")))
        .collect();
    texts.join("; ")
}

impl Looked {
    pub(crate) fn is_denied(&self) -> bool {
        self.error.kind() == io::ErrorKind::PermissionDenied
    }

    fn why(&self) -> String {
        match self.error.kind() {
            io::ErrorKind::NotFound => "no such socket".to_owned(),
            io::ErrorKind::ConnectionRefused => "nobody listens".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => self.error.to_string(),
        }
    }
}

/// For calls that only look something up.
pub(crate) const QUERY: Duration = Duration::from_secs(30);
/// For calls that wait for a platform: it bounds what the gateway bounds, should that fail.
pub(crate) const OPERATION: Duration = Duration::from_secs(15 * 60);

/// A request with a deadline. For a stream it holds until the stream has begun.
pub(crate) fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}
