//! One start of a built-in driver's program: its socket, its environment, and its last words.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

use super::environment;
use super::trouble::Trouble;
use crate::transport;

/// The first descriptor of systemd's socket activation.
const LISTEN_FD: RawFd = 3;

/// Makes the directory, private, and listens in it.
pub(super) fn bind(socket: &Path) -> Result<UnixListener, Trouble> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let failed = |error: std::io::Error| {
        Trouble::failing(format!("cannot listen on {}: {error}", socket.display()))
    };
    let directory = socket.parent().unwrap_or(Path::new("/"));
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed)?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(directory, private).map_err(failed)?;
    // Of a gateway that ran before.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = transport::bind(socket).map_err(failed)?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(socket, private).map_err(failed)?;
    Ok(listener)
}

#[allow(unsafe_code, reason = "passing a descriptor under a fixed number")]
pub(super) fn command(program: &Path, listener: &UnixListener) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_clear()
        .envs(environment::passed_on(program, std::env::vars_os()))
        .env("LISTEN_FDS", "1")
        .env("COFFERDAM_LISTEN_FD", LISTEN_FD.to_string())
        // Ctrl-C at the gateway's terminal is the gateway's alone.
        .process_group(0)
        .kill_on_drop(true);
    let listener = listener.as_raw_fd();
    // SAFETY: between fork and exec only async-signal-safe calls are made: dup2 and fcntl. The
    // listener is open in the parent for as long as this command is used.
    unsafe {
        command.pre_exec(move || {
            let done = match listener == LISTEN_FD {
                true => libc::fcntl(LISTEN_FD, libc::F_SETFD, 0),
                false => libc::dup2(listener, LISTEN_FD),
            };
            match done {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    command
}

pub(super) fn terminate(child: &Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It has not been waited for, so the number is still its own.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

pub(super) fn cannot_start(program: &Path, error: &std::io::Error) -> Trouble {
    let program = program.display();
    let trouble = Trouble::failing(format!("cannot start the driver {program}: {error}"));
    match error.kind() {
        std::io::ErrorKind::NotFound => trouble.with_fix(format!(
            "install {program}, or take the driver out of the configuration"
        )),
        std::io::ErrorKind::PermissionDenied => trouble.with_fix(format!("chmod 755 {program}")),
        _ => trouble,
    }
}

pub(super) fn ended(
    program: &Path,
    status: std::io::Result<ExitStatus>,
    last_words: &str,
) -> Trouble {
    let status = match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let program = program.display();
    let error = format!("the driver {program} ended ({status})");
    match last_words {
        "" => Trouble::failing(error),
        words => Trouble::failing(format!("{error}: {words}")),
    }
}
