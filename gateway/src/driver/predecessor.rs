//! The driver process that an earlier gateway left behind.
//!
//! A gateway that was killed could not end its drivers, and must not have to: they go on enforcing
//! deadlines. But two processes of one driver must not work on one platform, so the next gateway
//! ends the old one before it starts its own. `NAME.pid` beside the socket says which one that is:
//! the number, and the start time that tells it from a later process with the same number.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Notes which process runs now.
pub(super) fn remember(socket: &Path, pid: u32) {
    let Some(start_time) = start_time(pid) else {
        return;
    };
    // Without the note an old process may stay; nothing else depends on it.
    if let Err(error) = std::fs::write(pid_file(socket), format!("{pid} {start_time}\n")) {
        tracing::warn!(pid, %error, "cannot note the driver's process");
    }
}

/// The process has ended.
pub(super) fn forget(socket: &Path) {
    let _ = std::fs::remove_file(pid_file(socket));
}

/// Ends the process that an earlier gateway started, if it still runs.
pub(super) async fn end(socket: &Path, grace: Duration) -> io::Result<()> {
    let Some(process) = find(socket)? else {
        return Ok(());
    };
    tracing::info!(socket = %socket.display(), "ending the driver of an earlier gateway");
    // Runs to its end even if nobody waits for it any more.
    let ended = tokio::task::spawn_blocking(move || terminate(&process, grace));
    ended.await.map_err(io::Error::other)??;
    forget(socket);
    Ok(())
}

fn terminate(process: &OwnedFd, grace: Duration) -> io::Result<()> {
    pidfd_send_signal(process, Signal::TERM)?;
    if !has_ended(process, grace)? {
        pidfd_send_signal(process, Signal::KILL)?;
        has_ended(process, grace)?;
    }
    Ok(())
}

/// A process's descriptor is readable once it has ended.
fn has_ended(process: &OwnedFd, within: Duration) -> io::Result<bool> {
    let within = Timespec::try_from(within).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&within))? > 0)
}

fn find(socket: &Path) -> io::Result<Option<OwnedFd>> {
    let text = match std::fs::read_to_string(pid_file(socket)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let mut words = text.split_whitespace();
    let (Some(number), Some(noted)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let number: Option<u32> = number.parse().ok();
    let number = number.and_then(|number| i32::try_from(number).ok());
    let Some(pid) = number.and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let Ok(process) = pidfd_open(pid, PidfdFlags::NONBLOCK) else {
        return Ok(None);
    };
    // Compared after it was opened: the descriptor stands for this very process.
    let runs = start_time(pid.as_raw_nonzero().get().unsigned_abs());
    Ok((runs.as_deref() == Some(noted)).then_some(process))
}

/// Of `/proc/PID/stat`: the 22nd field; the 2nd is in parentheses and may hold anything.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

fn pid_file(socket: &Path) -> PathBuf {
    socket.with_extension("pid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_process_of_an_earlier_gateway_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("d.sock");
        let mut child = tokio::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        remember(&socket, child.id().unwrap());
        end(&socket, Duration::from_secs(10)).await.unwrap();
        assert!(!child.wait().await.unwrap().success());
        assert!(!pid_file(&socket).exists());
    }

    #[tokio::test]
    async fn a_process_that_only_has_the_same_number_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("d.sock");
        let own = std::process::id();
        std::fs::write(pid_file(&socket), format!("{own} 1\n")).unwrap();
        end(&socket, Duration::from_secs(10)).await.unwrap();
        for text in ["", "x y", "0 0", "-1 5"] {
            std::fs::write(pid_file(&socket), text).unwrap();
            end(&socket, Duration::from_secs(10)).await.unwrap();
        }
    }
}
