//! The supervisor's log: lines on standard error, which the driver keeps as the sandbox's console.
//!
//! Nobody may be reading there. A line is dropped rather than written into a full pipe, for a
//! supervisor that waits for its log no longer serves.

use std::fmt::{Arguments, Write as _};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Less than a pipe's atomic write, so that a pipe that polls writable takes a line at once.
const LINE_BYTES_MAX: usize = 1024;

/// Writes one line. Never give it what came from a secret.
macro_rules! log {
    ($($argument:tt)*) => { $crate::log::line(format_args!($($argument)*)) };
}
pub(crate) use log;

pub(crate) fn line(text: Arguments<'_>) {
    let mut line = String::from("cofferdam-supervisor: ");
    if write!(line, "{text}").is_err() {
        return;
    }
    let mut line = line.replace('\n', " ").into_bytes();
    line.truncate(LINE_BYTES_MAX - 1);
    line.push(b'\n');

    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
        && fds[0].revents().contains(PollFlags::OUT)
    {
        // A log that cannot be written is not worth a failure.
        let _ = rustix::io::write(stderr, &line);
    }
}
