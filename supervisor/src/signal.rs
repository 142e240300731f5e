//! Sending signals.
#![allow(
    unsafe_code,
    reason = "rustix has no raw signal numbers, and real-time signals exist"
)]

use std::io;

use thiserror::Error;

/// A Linux signal number that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal(i32);

/// The number is none.
#[derive(Debug, Error)]
#[error("signal {0} does not exist; 1 to 64 do")]
pub(crate) struct NoSuchSignal(u32);

impl Signal {
    pub(crate) const TERMINATE: Self = Self(libc::SIGTERM);
    pub(crate) const KILL: Self = Self(libc::SIGKILL);
    pub(crate) const STOP: Self = Self(libc::SIGSTOP);
    pub(crate) const CONTINUE: Self = Self(libc::SIGCONT);

    pub(crate) fn new(number: u32) -> Result<Self, NoSuchSignal> {
        match i32::try_from(number) {
            Ok(raw @ 1..=64) => Ok(Self(raw)),
            _ => Err(NoSuchSignal(number)),
        }
    }
}

/// To one process. A process that is no more is no error: its end was what could be asked for.
pub(crate) fn send(pid: i32, signal: Signal) -> io::Result<()> {
    debug_assert!(pid > 0, "zero and negative pids mean groups, or everybody");
    kill(pid, signal)
}

/// To a process group.
pub(crate) fn send_group(group: i32, signal: Signal) -> io::Result<()> {
    debug_assert!(group > 1, "group 1 would be everybody");
    kill(-group, signal)
}

fn kill(pid: i32, signal: Signal) -> io::Result<()> {
    // SAFETY: takes numbers, touches no memory.
    if unsafe { libc::kill(pid, signal.0) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) {
        Ok(())
    } else {
        Err(error)
    }
}
