//! Listening sockets: inherited ones, or one of our own.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::net::UnixListener;

use super::Args;

/// Names the one descriptor that a gateway passes to the drivers it starts.
pub(super) const LISTEN_FD_VARIABLE: &str = "COFFERDAM_LISTEN_FD";

/// The first inherited descriptor, as systemd counts.
const LISTEN_FDS_START: RawFd = 3;

/// More inherited listeners than anybody has a use for.
const LISTEN_FDS_MAX: RawFd = 16;

/// Why there is nothing to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Neither `--socket` nor an inherited listener.
    #[error("there is no socket to listen on")]
    Nowhere,
    /// An environment variable that says something else than it should.
    #[error("{name}={value:?} is not {expected}")]
    Environment {
        /// Of the variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// An inherited descriptor is not a listening Unix stream socket.
    #[error("descriptor {fd}, which was to be inherited, is not a listening unix socket")]
    NotAListener {
        /// Its number.
        fd: RawFd,
    },
    /// Another process answers on the socket.
    #[error("{path} is in use: another process answers there")]
    InUse {
        /// Of the socket.
        path: PathBuf,
    },
    /// There is something that is not a socket.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// Of the file.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error(
        "the directory {path} has mode {mode:o}: others than its owner could replace the socket; make it 700 or 755"
    )]
    Directory {
        /// Of the directory.
        path: PathBuf,
        /// Of the directory.
        mode: u32,
    },
    /// The kernel refuses.
    #[error("cannot listen on {path}")]
    Bind {
        /// Of the socket.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// What a driver accepts connections on.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) sockets: Vec<UnixListener>,
    pub(crate) own: Option<OwnSocket>,
}

impl Listeners {
    /// As flags and environment say. To be called within a runtime.
    ///
    /// # Errors
    /// When there is no place to listen on, or it is not safe.
    pub fn open(args: &Args) -> Result<Self, ListenError> {
        if let Some(path) = &args.socket {
            return Self::bind(path, args.socket_mode);
        }
        let descriptors = inherited(|name| std::env::var(name).ok(), std::process::id())?;
        if descriptors.is_empty() {
            return Err(ListenError::Nowhere);
        }
        let sockets = descriptors.into_iter().map(adopt);
        Ok(Self {
            sockets: sockets.collect::<Result<_, _>>()?,
            own: None,
        })
    }

    /// A socket of our own at `path`, removed when this is dropped.
    ///
    /// # Errors
    /// When somebody answers there, when it is no socket, or when others could replace it.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let bind_error = |source| ListenError::Bind {
            path: path.to_owned(),
            source,
        };
        check_directory(path)?;
        remove_stale(path)?;
        // Bound under a name that nobody knows yet, so that it never answers with a wrong mode.
        let name = format!(".{}.new", std::process::id());
        let hidden = path.with_file_name(name);
        let _ = std::fs::remove_file(&hidden);
        let listener = StdListener::bind(&hidden).map_err(bind_error)?;
        let published = std::fs::set_permissions(&hidden, PermissionsExt::from_mode(mode))
            .and_then(|()| std::fs::rename(&hidden, path))
            .and_then(|()| std::fs::symlink_metadata(path));
        let meta = published.map_err(|source| {
            let _ = std::fs::remove_file(&hidden);
            bind_error(source)
        })?;
        let own = OwnSocket {
            path: path.to_owned(),
            inode: meta.ino(),
        };
        let socket = into_tokio(listener).map_err(bind_error)?;
        Ok(Self {
            sockets: vec![socket],
            own: Some(own),
        })
    }

    /// Whether they came from the parent process.
    #[must_use]
    pub fn are_inherited(&self) -> bool {
        self.own.is_none()
    }
}

impl fmt::Display for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.own {
            Some(own) => write!(f, "{}", own.path.display()),
            None => write!(f, "{} inherited", self.sockets.len()),
        }
    }
}

/// Removes the socket's file at the end, unless it is another's by now.
#[derive(Debug)]
pub(crate) struct OwnSocket {
    path: PathBuf,
    inode: u64,
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| meta.ino() == self.inode && meta.file_type().is_socket());
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn check_directory(path: &Path) -> Result<(), ListenError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let meta = std::fs::metadata(directory).map_err(|source| ListenError::Bind {
        path: path.to_owned(),
        source,
    })?;
    let mode = meta.mode() & 0o7777;
    // In a sticky directory others can add names but not replace ours.
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        let path = directory.to_owned();
        return Err(ListenError::Directory { path, mode });
    }
    Ok(())
}

/// A socket that nobody answers on is left over from a killed process.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    let path = path.to_owned();
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket { path });
    }
    match UnixStream::connect(&path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(&path).map_err(|source| ListenError::Bind { path, source })
        }
        // It was removed in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(ListenError::InUse { path }),
    }
}

/// The numbers of inherited descriptors, by the environment of a process with this `pid`.
fn inherited(
    variable: impl Fn(&'static str) -> Option<String>,
    pid: u32,
) -> Result<Vec<RawFd>, ListenError> {
    let number = |name: &'static str, expected: &'static str| match variable(name) {
        None => Ok(None),
        Some(value) => match value.parse::<RawFd>() {
            Ok(number) if number >= 0 => Ok(Some(number)),
            _ => Err(ListenError::Environment {
                name,
                value,
                expected,
            }),
        },
    };
    if let Some(fd) = number(LISTEN_FD_VARIABLE, "the number of a descriptor")? {
        return Ok(vec![fd]);
    }
    let Some(count) = number("LISTEN_FDS", "a count of descriptors")? else {
        return Ok(Vec::new());
    };
    let meant_for = number("LISTEN_PID", "a process id")?;
    if meant_for.is_some_and(|meant_for| i64::from(meant_for) != i64::from(pid)) {
        // As sd_listen_fds(3): the variables were inherited by the wrong process.
        return Ok(Vec::new());
    }
    if count > LISTEN_FDS_MAX {
        return Err(ListenError::Environment {
            name: "LISTEN_FDS",
            value: count.to_string(),
            expected: "at most 16",
        });
    }
    Ok((LISTEN_FDS_START..LISTEN_FDS_START + count).collect())
}

#[allow(unsafe_code, reason = "a descriptor that was inherited by number")]
fn adopt(fd: RawFd) -> Result<UnixListener, ListenError> {
    if fd < LISTEN_FDS_START || rustix::io::fcntl_getfd(borrow(fd)).is_err() {
        return Err(ListenError::NotAListener { fd });
    }
    // SAFETY: the descriptor is open (checked above), was put there for us by the parent process,
    // and nothing else in this process uses that number: we are still starting.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    // It must not be inherited further, least of all by a sandbox.
    let closed_on_exec = rustix::io::fcntl_setfd(&owned, FdFlags::CLOEXEC);
    if !is_listening_unix_stream(&owned) || closed_on_exec.is_err() {
        return Err(ListenError::NotAListener { fd });
    }
    into_tokio(StdListener::from(owned)).map_err(|_| ListenError::NotAListener { fd })
}

#[allow(unsafe_code, reason = "a descriptor that was inherited by number")]
fn borrow(fd: RawFd) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: only used to ask the kernel whether the number is open; `fd` is not -1.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }
}

fn is_listening_unix_stream(fd: impl AsFd) -> bool {
    let fd = fd.as_fd();
    sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(fd) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(fd) == Ok(true)
}

fn into_tokio(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(environment: &[(&str, &str)]) -> Result<Vec<RawFd>, ListenError> {
        let variable = |name: &'static str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        inherited(variable, 7)
    }

    #[test]
    fn descriptors_are_inherited_as_systemd_passes_them() {
        assert!(numbers(&[]).unwrap().is_empty());
        assert_eq!(
            numbers(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "7")]).unwrap(),
            [3, 4]
        );
        let anothers = numbers(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "8")]);
        assert!(anothers.unwrap().is_empty());
        assert_eq!(numbers(&[("LISTEN_FDS", "1")]).unwrap(), [3]);
        assert_eq!(
            numbers(&[("COFFERDAM_LISTEN_FD", "5"), ("LISTEN_FDS", "1")]).unwrap(),
            [5]
        );
        for wrong in ["x", "-1", "17"] {
            assert!(numbers(&[("LISTEN_FDS", wrong)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_that_is_no_listener_is_refused() {
        assert!(matches!(adopt(1), Err(ListenError::NotAListener { fd: 1 })));
        assert!(matches!(
            adopt(9999),
            Err(ListenError::NotAListener { fd: 9999 })
        ));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("driver.sock");
        drop(StdListener::bind(&path).unwrap());
        let live = Listeners::bind(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(
            Listeners::bind(&path, 0o600),
            Err(ListenError::InUse { .. })
        ));
        drop(live);
        assert!(!path.exists(), "removed at the end");
    }

    #[tokio::test]
    async fn a_socket_that_became_anothers_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("driver.sock");
        let ours = Listeners::bind(&path, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _theirs = StdListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn files_and_open_directories_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("driver.sock");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(
            Listeners::bind(&path, 0o600),
            Err(ListenError::NotASocket { .. })
        ));
        std::fs::remove_file(&path).unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(
            Listeners::bind(&path, 0o600),
            Err(ListenError::Directory { .. })
        ));
    }
}
