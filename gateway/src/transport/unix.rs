//! Unix sockets under paths of any length.
//!
//! A socket's address holds 107 bytes of path. Longer ones are reached through a descriptor of
//! their directory: `/proc/self/fd/N/NAME`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;

const PATH_BYTES_MAX: usize = 107;

/// How many connections may wait to be accepted. The kernel takes less if its own limit is lower.
const BACKLOG: i32 = 1024;

/// Binds and listens, non-blocking. The name must be free. For `UnixListener::from_std`, or to be
/// handed to a child.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    let (path, _directory) = short(path)?;
    listen_on(&path)
}

/// As [`bind`], under an address that says nothing of where the directory is: a peer in another root
/// can read the address, in its `/proc/net/unix`.
pub fn bind_unnamed(path: &Path) -> io::Result<StdListener> {
    let (path, _directory) = below_descriptor(path)?;
    listen_on(&path)
}

fn listen_on(path: &Path) -> io::Result<StdListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Connects. A listener with a full queue is an error (`WouldBlock`), not a wait.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let (path, _directory) = short(path)?;
    UnixStream::connect(path).await
}

/// A path that fits, valid as long as the descriptor beside it is open.
fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let (path, directory) = below_descriptor(path)?;
    Ok((path, Some(directory)))
}

/// The same file by way of its directory's descriptor.
fn below_descriptor(path: &Path) -> io::Result<(PathBuf, File)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = File::from(rustix::fs::open(parent, flags, Mode::empty())?);
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    Ok((short.join(name), directory))
}
