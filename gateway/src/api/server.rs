//! The socket that callers connect to.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_proto::FRAME_BYTES_MAX;
use cofferdam_proto::gateway::v1::gateway_server::GatewayServer;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::warn;

use super::Api;
use crate::config::SocketConfig;

/// As between supervisor and gateway: a stalled stream holds back itself and nothing else.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const STREAMS_MAX: u32 = 1_024;
/// A request is small, but for pieces of files and stdin.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another gateway listens on {path}")]
    InUse { path: PathBuf },
    #[error("{path} is there and is not a socket; move it away or configure another path")]
    NotASocket { path: PathBuf },
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("there is no group {name:?} on this host; see socket.group")]
    NoGroup { name: String },
}

/// A bound socket; callers wait in its backlog until it is served.
#[derive(Debug)]
pub(crate) struct ApiServer {
    listener: UnixListener,
    path: PathBuf,
}

impl ApiServer {
    pub(crate) async fn bind(config: &SocketConfig) -> Result<Self, BindError> {
        let path = &config.path;
        let io = |what| {
            let path = path.clone();
            move |source| BindError::Io { what, path, source }
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io("make the directory of"))?;
        }
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(io("listen on"))?;
        if let Some(name) = &config.group {
            let gid = group_id(name).ok_or_else(|| BindError::NoGroup { name: name.clone() })?;
            std::os::unix::fs::chown(path, None, Some(gid)).map_err(io("change the group of"))?;
        }
        let permissions = std::fs::Permissions::from_mode(config.mode);
        std::fs::set_permissions(path, permissions).map_err(io("set the mode of"))?;
        Ok(Self {
            listener,
            path: path.clone(),
        })
    }

    /// Serves until `stop`, then lets what is under way end until `cut`.
    pub(crate) async fn serve(
        self,
        api: Api,
        stop: CancellationToken,
        cut: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_serving::<GatewayServer<Api>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(cofferdam_proto::FILE_DESCRIPTOR_SET)
            .build_v1();
        let mut router = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .add_service(health)
            .add_service(
                GatewayServer::new(api)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            );
        match reflection {
            Ok(reflection) => router = router.add_service(reflection),
            Err(error) => warn!(%error, "no server reflection"),
        }
        let incoming = UnixListenerStream::new(self.listener);
        let served = router.serve_with_incoming_shutdown(incoming, stop.cancelled());
        let result = tokio::select! {
            result = served => result,
            () = cut.cancelled() => Ok(()),
        };
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!(path = %self.path.display(), %error, "the socket was not removed");
        }
        result
    }
}

/// A socket that nobody answers on was left by a gateway that was killed.
async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let path_buf = || path.to_path_buf();
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(BindError::Io {
                what: "look at",
                path: path_buf(),
                source,
            });
        }
    };
    if !std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) {
        return Err(BindError::NotASocket { path: path_buf() });
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(BindError::InUse { path: path_buf() });
    }
    std::fs::remove_file(path).map_err(|source| BindError::Io {
        what: "remove the stale socket",
        path: path_buf(),
        source,
    })
}

/// From the group file: a static answer, as the socket's owner needs it at start only.
fn group_id(name: &str) -> Option<u32> {
    if let Ok(gid) = name.parse() {
        return Some(gid);
    }
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let gid = fields.nth(1)?.parse().ok()?;
        found.then_some(gid)
    })
}
