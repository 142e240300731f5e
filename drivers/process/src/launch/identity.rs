//! Is a process still the one it was?

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sandbox::record::ProcessId;
use crate::shim::proc;

/// A live process, pinned by a pidfd and verified by its start time.
#[derive(Debug)]
pub struct ProcessIdentity {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl ProcessIdentity {
    /// Finds the process; `None` when it is gone, or when its pid is somebody else's by now.
    pub fn find(id: ProcessId) -> Option<Self> {
        // First the descriptor, then the check: after it, the number cannot change hands.
        let pidfd = pidfd_open(Pid::from_raw(id.pid)?, PidfdFlags::empty()).ok()?;
        let start_time = start_time(id.pid)?;
        (start_time == id.start_time && !is_zombie(id.pid)).then_some(ProcessIdentity { id, pidfd })
    }

    /// Who it is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// SIGKILL. A process that ended meanwhile is as dead.
    pub fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Err(Errno::SRCH) | Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until it has ended. Cancel-safe.
    pub async fn ended(self) -> io::Result<()> {
        #[allow(unsafe_code, reason = "tokio asks for a promise that an OwnedFd gives")]
        // SAFETY: the OwnedFd moves into the AsyncFd, so it stays open, and the same, for as long.
        let pidfd = unsafe { AsyncFd::register_with_interest(self.pidfd, Interest::READABLE) }?;
        drop(pidfd.readable().await?);
        Ok(())
    }

    /// Waits at most this long; false when it is still alive.
    pub async fn ended_within(self, limit: Duration) -> io::Result<bool> {
        match tokio::time::timeout(limit, self.ended()).await {
            Ok(outcome) => outcome.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// Field 22 of `/proc/PID/stat`.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    proc::parse_start_time(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The real uid of a process, as the reader's namespace sees it.
pub(super) fn real_uid(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The kernel's boot id. Records of another boot speak of no living process.
pub(super) fn boot_id() -> String {
    let id = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id"));
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}
