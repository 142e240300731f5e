//! Getting a stream: connecting to the gateway's socket, or opening what a relay carries.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use tokio::net::UnixStream;

use super::wire::{Relay, Wire};
use crate::args::Callback;
use crate::bootstrap::inherited;

const SOCKET_NAME: &str = "gateway.sock";

/// What a socket's address holds of a path.
const ADDRESS_BYTES_MAX: usize = 107;

/// Makes streams to the gateway, as often as one is needed.
#[derive(Debug)]
pub(crate) enum Connector {
    Socket {
        path: PathBuf,
        /// Keeps the descriptor that the path names.
        _directory: Option<OwnedFd>,
    },
    Stdio(Option<Arc<Relay>>),
    VirtioPort {
        name: String,
        relay: Option<Arc<Relay>>,
    },
}

impl Connector {
    /// Takes over the descriptors that the command line names.
    pub(crate) fn new(callback: &Callback) -> io::Result<Self> {
        match callback {
            Callback::Directory(directory) => Ok(Self::Socket {
                path: directory.join(SOCKET_NAME),
                _directory: None,
            }),
            Callback::DirectoryFd(fd) => {
                let directory = inherited(*fd)?;
                let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
                Ok(Self::Socket {
                    path: path.join(SOCKET_NAME),
                    _directory: Some(directory),
                })
            }
            Callback::Stdio => Ok(Self::Stdio(None)),
            Callback::VirtioPort(name) => Ok(Self::VirtioPort {
                name: name.clone(),
                relay: None,
            }),
        }
    }

    /// One stream. A relayed one is the same as before if that still goes.
    pub(crate) async fn connect(&mut self) -> io::Result<Wire> {
        match self {
            Self::Socket { path, .. } => Ok(Wire::socket(connect_to(path).await?)),
            Self::Stdio(relay) => {
                let stdio = match relay.take() {
                    Some(stdio) => stdio,
                    None => Arc::new(take_stdio()?),
                };
                Ok(Wire::relayed(Arc::clone(relay.insert(stdio))))
            }
            Self::VirtioPort { name, relay } => {
                let port = match relay.take().filter(|relay| relay.was_interrupted()) {
                    Some(port) => port,
                    // A port takes only one opening at a time, so the old one is closed by now.
                    None => Arc::new(open_port(name)?),
                };
                Ok(Wire::relayed(Arc::clone(relay.insert(port))))
            }
        }
    }

    /// The stream outlives sessions, and the peer cannot be seen to go away.
    pub(crate) fn is_relayed(&self) -> bool {
        !matches!(self, Self::Socket { .. })
    }

    /// Whether a stream that ended can be had again.
    pub(crate) fn can_reconnect(&self) -> bool {
        match self {
            Self::Stdio(relay) => relay.as_ref().is_some_and(|relay| relay.was_interrupted()),
            Self::Socket { .. } | Self::VirtioPort { .. } => true,
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

/// Moves standard input and output away, so that nothing else can write into the stream.
fn take_stdio() -> io::Result<Relay> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let reader = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
    let writer = rustix::io::fcntl_dupfd_cloexec(stdout, 3)?;
    if let Ok(null) = &null {
        rustix::stdio::dup2_stdin(null)?;
        rustix::stdio::dup2_stdout(null)?;
    }
    for fd in [&reader, &writer] {
        fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
    }
    Relay::new(reader, writer)
}

fn open_port(name: &str) -> io::Result<Relay> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let port = open(port_device(name)?, flags, Mode::empty())?;
    let writer = rustix::io::fcntl_dupfd_cloexec(&port, 3)?;
    Relay::new(port, writer)
}

/// The device of a virtio-serial port. A guest without udev has no link by the port's name.
fn port_device(name: &str) -> io::Result<PathBuf> {
    let link = Path::new("/dev/virtio-ports").join(name);
    if link.exists() {
        return Ok(link);
    }
    for entry in std::fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let text = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if text.trim_end() == name {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "no virtio-serial port has this name",
    ))
}
