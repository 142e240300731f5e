//! Bytes between a sandbox and its callback socket, where the socket cannot be mounted.
//!
//! A relay knows nothing of what it carries. It keeps one stream into the sandbox connected to
//! `gateway.sock` in the callback directory, as long as both exist:
//!
//! ```text
//!   sandbox ◄── stream ──► relay ──► <callback directory>/gateway.sock
//!                            ╰── gone? connect again, with backoff; the gateway may restart
//! ```
//!
//! While there is no gateway nothing is read from the sandbox, so the sandbox waits and no buffer
//! grows. Bytes that were on their way when a side went are lost; both ends begin every session
//! with the hello, which skips such remains.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Bytes that a relay holds at most, in each direction: what the hello's prototype was fastest with.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// The first wait before connecting again; it doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait before connecting again.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Name of the socket in a callback directory.
pub const SOCKET_NAME: &str = "gateway.sock";

/// What a socket's address holds of a path.
const ADDRESS_BYTES_MAX: usize = 107;

/// Why a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// It was cancelled.
    Cancelled,
    /// The sandbox's side ended and cannot be had again.
    SandboxClosed,
    /// The sandbox's side failed.
    SandboxFailed(io::Error),
}

/// Relays one stream that stays: a serial port, `attach` of a container. When the gateway goes, the
/// stream is kept for its next connection. Ends when the stream does.
pub async fn persistent<S>(
    stream: S,
    callback_directory: &Path,
    cancel: &CancellationToken,
) -> RelayEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let gateway = GatewaySocket::new(callback_directory);
    loop {
        let Some(socket) = gateway.connect(cancel).await else {
            return RelayEnd::Cancelled;
        };
        tokio::select! {
            () = cancel.cancelled() => return RelayEnd::Cancelled,
            ended = carry(&mut reader, &mut writer, socket) => match ended {
                Side::Gateway => {}
                Side::Sandbox(Ok(())) => return RelayEnd::SandboxClosed,
                Side::Sandbox(Err(error)) => return RelayEnd::SandboxFailed(error),
            },
        }
    }
}

/// Relays a stream that is opened anew for each connection to the gateway: `exec` of a connecting
/// program, a forwarded port. When either side goes, so does the other, and both are opened again.
/// `open` says with [`io::ErrorKind::NotFound`] that the sandbox is gone; its other errors are
/// tried again.
pub async fn reopening<S, F, Fut>(
    mut open: F,
    callback_directory: &Path,
    cancel: &CancellationToken,
) -> RelayEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnMut() -> Fut,
    Fut: Future<Output = io::Result<S>>,
{
    let gateway = GatewaySocket::new(callback_directory);
    let mut backoff = Backoff::new();
    loop {
        let Some(socket) = gateway.connect(cancel).await else {
            return RelayEnd::Cancelled;
        };
        let stream = tokio::select! {
            () = cancel.cancelled() => return RelayEnd::Cancelled,
            stream = open() => stream,
        };
        match stream {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return RelayEnd::SandboxClosed;
            }
            Err(error) => tracing::debug!(%error, "the sandbox's stream cannot be opened"),
            Ok(stream) => {
                backoff = Backoff::new();
                let (mut reader, mut writer) = tokio::io::split(stream);
                tokio::select! {
                    () = cancel.cancelled() => return RelayEnd::Cancelled,
                    _either = carry(&mut reader, &mut writer, socket) => {}
                }
            }
        }
        if !backoff.wait(cancel).await {
            return RelayEnd::Cancelled;
        }
    }
}

enum Side {
    Gateway,
    Sandbox(io::Result<()>),
}

/// Carries bytes both ways until one side ends. Cancelled, it loses at most two buffers.
async fn carry<R, W>(sandbox_reader: &mut R, sandbox_writer: &mut W, socket: UnixStream) -> Side
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut gateway_reader, mut gateway_writer) = socket.into_split();
    let outwards = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match sandbox_reader.read(&mut buffer).await {
                Ok(0) => return Side::Sandbox(Ok(())),
                Err(error) => return Side::Sandbox(Err(error)),
                Ok(count) => {
                    if gateway_writer.write_all(&buffer[..count]).await.is_err() {
                        return Side::Gateway;
                    }
                }
            }
        }
    };
    let inwards = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match gateway_reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return Side::Gateway,
                Ok(count) => {
                    let written = async {
                        sandbox_writer.write_all(&buffer[..count]).await?;
                        sandbox_writer.flush().await
                    };
                    if let Err(error) = written.await {
                        return Side::Sandbox(Err(error));
                    }
                }
            }
        }
    };
    tokio::select! {
        side = outwards => side,
        side = inwards => side,
    }
}

/// The gateway's end, which may come and go.
struct GatewaySocket {
    path: PathBuf,
}

impl GatewaySocket {
    fn new(callback_directory: &Path) -> Self {
        Self {
            path: callback_directory.join(SOCKET_NAME),
        }
    }

    /// Connects, however long that takes; `None` when cancelled.
    async fn connect(&self, cancel: &CancellationToken) -> Option<UnixStream> {
        let mut backoff = Backoff::new();
        loop {
            if let Ok(socket) = connect_to(&self.path).await {
                return Some(socket);
            }
            if !backoff.wait(cancel).await {
                return None;
            }
        }
    }
}

/// A path that no address can hold is reached through a descriptor of its directory.
async fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let (Some(directory), true) = (path.parent(), path.as_os_str().len() > ADDRESS_BYTES_MAX)
    else {
        return UnixStream::connect(path).await;
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    UnixStream::connect(short.join(SOCKET_NAME)).await
}

struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(BACKOFF_MIN)
    }

    /// False when cancelled.
    async fn wait(&mut self, cancel: &CancellationToken) -> bool {
        let wait = self.0;
        self.0 = (wait * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = cancel.cancelled() => false,
            () = sleep(wait) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::net::UnixListener;

    use super::*;

    struct Rig {
        directory: tempfile::TempDir,
        sandbox: DuplexStream,
        cancel: CancellationToken,
        relay: tokio::task::JoinHandle<RelayEnd>,
    }

    fn rig() -> Rig {
        let directory = tempfile::tempdir().unwrap();
        let (sandbox, far) = duplex(1024);
        let cancel = CancellationToken::new();
        let relay = tokio::spawn({
            let (path, cancel) = (directory.path().to_owned(), cancel.clone());
            async move { persistent(far, &path, &cancel).await }
        });
        Rig {
            directory,
            sandbox,
            cancel,
            relay,
        }
    }

    impl Rig {
        fn listen(&self) -> UnixListener {
            let path = self.directory.path().join(SOCKET_NAME);
            let _ = std::fs::remove_file(&path);
            UnixListener::bind(path).unwrap()
        }
    }

    async fn expect(stream: &mut (impl AsyncRead + Unpin), bytes: &[u8]) {
        let mut buffer = vec![0; bytes.len()];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(buffer, bytes);
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_survive_a_gateways_restart() {
        let mut rig = rig();
        for round in [b"one", b"two"] {
            let listener = rig.listen();
            let (mut gateway, _) = listener.accept().await.unwrap();
            gateway.write_all(round).await.unwrap();
            expect(&mut rig.sandbox, round).await;
            rig.sandbox.write_all(round).await.unwrap();
            expect(&mut gateway, round).await;
        }
        rig.cancel.cancel();
        assert!(matches!(rig.relay.await.unwrap(), RelayEnd::Cancelled));
    }

    #[tokio::test]
    async fn a_callback_directory_may_have_a_path_longer_than_a_sockets_address() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(ADDRESS_BYTES_MAX));
        std::fs::create_dir(&long).unwrap();
        let listener = UnixListener::bind(directory.path().join("short")).unwrap();
        std::fs::rename(directory.path().join("short"), long.join(SOCKET_NAME)).unwrap();
        let (mut sandbox, far) = duplex(64);
        let cancel = CancellationToken::new();
        let relay = tokio::spawn({
            let cancel = cancel.clone();
            async move { persistent(far, &long, &cancel).await }
        });
        let (mut gateway, _) = listener.accept().await.unwrap();
        gateway.write_all(b"near").await.unwrap();
        expect(&mut sandbox, b"near").await;
        cancel.cancel();
        relay.await.unwrap();
    }

    #[tokio::test]
    async fn the_end_of_the_sandbox_ends_the_relay() {
        let rig = rig();
        let listener = rig.listen();
        let (mut gateway, _) = listener.accept().await.unwrap();
        drop(rig.sandbox);
        assert!(matches!(rig.relay.await.unwrap(), RelayEnd::SandboxClosed));
        assert_eq!(gateway.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn without_a_gateway_the_sandbox_waits_and_nothing_is_buffered() {
        let mut rig = rig();
        // More than the pipe holds: it cannot be written while nobody reads.
        let blocked = rig.sandbox.write_all(&[7; 4096]);
        assert!(
            tokio::time::timeout(Duration::from_millis(200), blocked)
                .await
                .is_err()
        );
        rig.cancel.cancel();
    }

    #[tokio::test]
    async fn a_reopened_stream_follows_the_gateway() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join(SOCKET_NAME)).unwrap();
        let (far_ends, mut opened) = tokio::sync::mpsc::channel(4);
        let cancel = CancellationToken::new();
        let open = move || {
            let far_ends = far_ends.clone();
            async move {
                let (near, far) = duplex(64);
                far_ends
                    .send(far)
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
                Ok(near)
            }
        };
        let path = directory.path().to_owned();
        let relay = tokio::spawn(async move { reopening(open, &path, &cancel).await });
        for _ in 0..2 {
            let (gateway, _) = listener.accept().await.unwrap();
            let mut sandbox = opened.recv().await.unwrap();
            drop(gateway);
            assert_eq!(sandbox.read(&mut [0; 8]).await.unwrap(), 0);
        }
        drop(opened);
        let _third = listener.accept().await.unwrap();
        assert!(matches!(relay.await.unwrap(), RelayEnd::SandboxClosed));
    }
}
