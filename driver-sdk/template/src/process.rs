//! A process that cannot be mistaken for another one: its pid, and when it was started.
//!
//! A pid alone may belong to somebody else by the time it is used. After a restart that is not an
//! exotic case: the driver reads pids that are hours old.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// In ticks since the host's boot, as /proc has it.
    start_ticks: u64,
}

impl ProcessId {
    /// Of a process that runs.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let start_ticks = Stat::read(pid)?.start_ticks;
        Ok(Self { pid, start_ticks })
    }

    /// A descriptor of this very process; none if it has ended.
    fn open(self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Looked at after it was opened: from here on the descriptor cannot become another's.
        self.is_alive().then_some(fd)
    }

    /// A zombie is dead.
    pub(crate) fn is_alive(self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| {
            stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X')
        })
    }

    /// One that has ended gets nothing, and that is no error.
    pub(crate) fn signal(self, signal: Signal) -> io::Result<()> {
        match self.open() {
            None => Ok(()),
            Some(fd) => match pidfd_send_signal(fd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// All processes below `root`, as /proc has them now.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        // Whoever ends while we look has no children any more.
        if let Some(pid) = pid
            && let Ok(stat) = Stat::read(pid)
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut pending = vec![root];
    while let Some(pid) = pending.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        pending.extend(&below);
        found.extend(below);
    }
    found
}

/// What /proc says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other("/proc/PID/stat is not as expected"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may hold anything, also parentheses and spaces.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        // Fields 3, 4 and 22 of proc_pid_stat(5).
        Some(Self {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            start_ticks: fields.nth(17)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let after = "S 77 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        let stat = Stat::parse(&format!("12 (odd) name ( ) {after}")).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('S', 77, 4711));
        assert_eq!(Stat::parse("12 (cut"), None);
    }

    #[test]
    fn another_process_of_the_same_pid_is_not_taken_for_it() {
        let own = ProcessId::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        let earlier = ProcessId {
            start_ticks: own.start_ticks + 1,
            ..own
        };
        assert!(!earlier.is_alive());
        // Nobody is hit.
        earlier.signal(Signal::KILL).unwrap();
    }
}
