//! Reaching a driver's socket, and trusting what listens there.
//!
//! Whoever owns the socket gets to see sandboxes' specs and the platform's credentials. So the
//! socket must belong to this user or to root, others must not be able to reach it, and the process
//! behind it must belong to the socket's owner or to root. The same checks hold for the gateway's
//! own sockets.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::trouble::Trouble;
use crate::transport;

/// A connection to a listener that may be trusted.
pub(super) async fn connect(path: &Path, deadline: Duration) -> Result<UnixStream, Trouble> {
    let socket = inspect(path)?;
    let own_uid = rustix::process::geteuid().as_raw();
    judge(&socket, own_uid)?;
    let stream = match timeout(deadline, transport::connect(path)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(path, &error)),
        Err(_) => return Err(Trouble::silent(&format!(" on {}", path.display()))),
    };
    let peer = stream
        .peer_cred()
        .map_err(|error| unreachable(path, &error))?;
    if peer.uid() != socket.uid && peer.uid() != 0 {
        let error = format!(
            "what listens on {} runs as uid {}, but the socket belongs to uid {}",
            path.display(),
            peer.uid(),
            socket.uid
        );
        let fix = "find out who listens there; remove the socket and start the driver again";
        return Err(Trouble::refused(error, fix));
    }
    Ok(stream)
}

/// What counts of a socket's and its directory's metadata.
#[derive(Debug, Clone)]
struct SocketFacts {
    path: PathBuf,
    is_socket: bool,
    uid: u32,
    mode: u32,
    directory_uid: u32,
    directory_mode: u32,
}

fn inspect(path: &Path) -> Result<SocketFacts, Trouble> {
    let real = path.canonicalize().map_err(|error| missing(path, &error))?;
    let socket = real
        .symlink_metadata()
        .map_err(|error| missing(path, &error))?;
    let directory = real.parent().unwrap_or(Path::new("/"));
    let directory = directory
        .metadata()
        .map_err(|error| missing(path, &error))?;
    Ok(SocketFacts {
        path: path.to_owned(),
        is_socket: socket.file_type().is_socket(),
        uid: socket.uid(),
        mode: socket.mode() & 0o7777,
        directory_uid: directory.uid(),
        directory_mode: directory.mode() & 0o7777,
    })
}

fn missing(path: &Path, error: &io::Error) -> Trouble {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Trouble::failing(format!("there is no socket {path}"))
            .with_fix("start the driver, or correct its socket's path")
            .without_socket(),
        io::ErrorKind::PermissionDenied => Trouble::refused(
            format!("the gateway may not look at {path}"),
            "give the gateway's user search permission (x) on the directories above it",
        ),
        _ => Trouble::failing(format!("cannot look at {path}: {error}")),
    }
}

fn unreachable(path: &Path, error: &io::Error) -> Trouble {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            let trouble = Trouble::failing(format!("nothing listens on {path}"));
            trouble.with_fix("start the driver").without_socket()
        }
        io::ErrorKind::PermissionDenied => Trouble::refused(
            format!("the gateway may not connect to {path}"),
            "make the gateway's user the owner of the socket",
        ),
        io::ErrorKind::WouldBlock => Trouble::silent(&format!(
            " on {path}: too many connections wait to be accepted"
        )),
        _ => Trouble::failing(format!("cannot connect to {path}: {error}")),
    }
}

/// The rules for sockets, without the file system.
fn judge(socket: &SocketFacts, own_uid: u32) -> Result<(), Trouble> {
    let path = socket.path.display();
    if !socket.is_socket {
        let error = format!("{path} is not a socket");
        let trouble = Trouble::refused(error, "correct the path of the driver's socket");
        return Err(trouble.without_socket());
    }
    if socket.uid != own_uid && socket.uid != 0 {
        let error = format!(
            "the socket {path} belongs to uid {}, not to the gateway's uid {own_uid} or to root",
            socket.uid
        );
        let fix = "run the driver as the gateway's user or as root, or `chown` its socket";
        return Err(Trouble::refused(error, fix));
    }
    if socket.mode & 0o022 != 0 && !is_protected(socket, own_uid) {
        let error = format!(
            "the socket {path} has mode {:03o}: others than its owner can connect to the driver",
            socket.mode
        );
        let fix = format!("chmod 600 {path}, or put it into a directory of mode 750 or less");
        return Err(Trouble::refused(error, fix));
    }
    Ok(())
}

/// Nobody but those whom the directory's owner let in can reach what lies in it.
fn is_protected(socket: &SocketFacts, own_uid: u32) -> bool {
    let owned = socket.directory_uid == own_uid || socket.directory_uid == 0;
    owned && socket.directory_mode & 0o023 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> SocketFacts {
        SocketFacts {
            path: "/run/d.sock".into(),
            is_socket: true,
            uid: 1000,
            mode: 0o600,
            directory_uid: 0,
            directory_mode: 0o755,
        }
    }

    fn refusal(facts: SocketFacts) -> Trouble {
        judge(&facts, 1000).unwrap_err()
    }

    #[test]
    fn own_and_roots_sockets_are_trusted() {
        assert_eq!(judge(&socket(), 1000), Ok(()));
        assert_eq!(judge(&SocketFacts { uid: 0, ..socket() }, 1000), Ok(()));
    }

    #[test]
    fn another_users_socket_is_refused_and_the_error_names_everything() {
        let trouble = refusal(SocketFacts {
            uid: 1001,
            ..socket()
        });
        assert!(trouble.refused);
        for word in ["/run/d.sock", "1001", "1000"] {
            assert!(trouble.error.contains(word), "{trouble:?}");
        }
        assert!(!trouble.fix.is_empty());
    }

    #[test]
    fn even_roots_gateway_does_not_trust_a_users_socket() {
        assert!(judge(&socket(), 0).is_err());
    }

    #[test]
    fn a_socket_that_others_may_write_to_is_refused_unless_its_directory_keeps_them_out() {
        for mode in [0o660, 0o606, 0o666, 0o777] {
            let open = SocketFacts { mode, ..socket() };
            assert!(refusal(open.clone()).error.contains("mode"));
            for (directory_mode, fine) in [
                (0o700, true),
                (0o750, true),
                (0o710, true),
                (0o751, false),
                (0o770, false),
                (0o755, false),
            ] {
                let facts = SocketFacts {
                    directory_mode,
                    ..open.clone()
                };
                assert_eq!(judge(&facts, 1000).is_ok(), fine, "{directory_mode:o}");
            }
            let foreign = SocketFacts {
                directory_mode: 0o700,
                directory_uid: 1001,
                ..open
            };
            assert!(judge(&foreign, 1000).is_err());
        }
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let file = SocketFacts {
            is_socket: false,
            ..socket()
        };
        assert!(refusal(file).error.contains("not a socket"));
    }
}
