//! A supervisor, or a command, as a plain child process, and the end of its whole tree.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::console::Console;
use crate::capabilities::termination;
use crate::proto::{SandboxSpec, Termination, TerminationReason};
use crate::supervisor::{Bootstrap, SupervisorBinary};

/// A program that was started. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pid: i32,
    ended: watch::Receiver<Option<Ended>>,
}

/// What a program was given to write to.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended(Option<ExitStatus>);

impl Child {
    pub(super) fn spawn(
        binary: &SupervisorBinary,
        callback_directory: &Path,
        bootstrap: &Bootstrap,
        console: Console,
        tasks: &TaskTracker,
    ) -> io::Result<Self> {
        let memory = rustix::fs::memfd_create("bootstrap", MemfdFlags::CLOEXEC)?;
        let mut memory = std::fs::File::from(memory);
        memory.write_all(bootstrap.to_json().as_bytes())?;
        io::Seek::rewind(&mut memory)?;
        let mut command = Command::new(binary.proc_path());
        command
            .arg("--callback")
            .arg(format!("dir:{}", callback_directory.display()))
            .arg("--config-fd")
            .arg(memory.as_raw_fd().to_string())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        inherit(&mut command, &memory);
        let (child, pipes) = Self::start(&mut command, tasks)?;
        if let Some(stderr) = pipes.stderr {
            tasks.spawn(console.fill(stderr));
        }
        Ok(child)
    }

    /// Starts a program, with the pipes that it was told to have.
    pub(super) fn start(command: &mut Command, tasks: &TaskTracker) -> io::Result<(Self, Pipes)> {
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("it ended before it began"))?;
        let pipes = Pipes {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        let (tell, ended) = watch::channel(None);
        tasks.spawn(async move {
            let status = child.wait().await.ok();
            tell.send_replace(Some(Ended(status)));
        });
        Ok((Self { pid, ended }, pipes))
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    pub(super) async fn wait(&self) -> Ended {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        ended.ok().and_then(|ended| *ended).unwrap_or(Ended(None))
    }

    /// Asks it to end, kills it and everything below it after `grace`, and waits until it is gone.
    pub(super) async fn kill(&self, grace: Duration) {
        if !grace.is_zero() {
            self.signal(Signal::TERM);
            let _ = timeout(grace, self.wait()).await;
        }
        if !self.has_ended() {
            // Stopped first, so that it starts nothing new while its tree is being killed.
            self.signal(Signal::STOP);
            for pid in descendants(self.pid) {
                kill(pid, Signal::KILL);
            }
            self.signal(Signal::KILL);
        }
        self.wait().await;
    }

    /// Stops it and everything below it.
    pub(super) fn freeze(&self) {
        let mut stopped = HashSet::new();
        loop {
            // What is not stopped yet may start something new.
            let tree: HashSet<i32> = self.tree().collect();
            if tree.is_subset(&stopped) {
                return;
            }
            for pid in tree.difference(&stopped) {
                kill(*pid, Signal::STOP);
            }
            stopped.extend(tree);
        }
    }

    /// Lets it go on, and everything below it.
    pub(super) fn thaw(&self) {
        for pid in self.tree() {
            kill(pid, Signal::CONT);
        }
    }

    /// Empty, when it has ended.
    fn tree(&self) -> impl Iterator<Item = i32> {
        let lives = self.ended.borrow().is_none();
        let below = if lives {
            descendants(self.pid)
        } else {
            Vec::new()
        };
        lives.then_some(self.pid).into_iter().chain(below)
    }

    fn signal(&self, signal: Signal) {
        if !self.has_ended() {
            kill(self.pid, signal);
        }
    }
}

impl Ended {
    pub(super) fn termination(self, time_unix_ms: u64) -> Termination {
        let status = self.0;
        let (code, signal) = (
            status.and_then(|status| status.code()),
            status.and_then(|status| status.signal()),
        );
        match (code, signal) {
            (Some(code), _) => Termination {
                exit_code: code,
                ..termination(
                    TerminationReason::Exited,
                    format!("it ended with code {code}"),
                    time_unix_ms,
                )
            },
            (None, Some(signal)) => Termination {
                signal: signal.unsigned_abs(),
                ..termination(
                    TerminationReason::Signaled,
                    format!("it was killed by signal {signal}"),
                    time_unix_ms,
                )
            },
            (None, None) => termination(
                TerminationReason::PlatformLost,
                "nobody saw how it ended",
                time_unix_ms,
            ),
        }
    }
}

#[allow(
    unsafe_code,
    reason = "one descriptor is to be inherited by this child alone"
)]
fn inherit(command: &mut Command, memory: &std::fs::File) {
    let fd = memory.as_raw_fd();
    let clear = move || {
        // SAFETY: runs in the child between fork and exec, where `fd` is still open, since the
        // parent holds the file until `spawn` has returned; fcntl(2) is async-signal-safe.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        Ok(())
    };
    // SAFETY: `clear` calls fcntl(2) only: it allocates nothing and takes no locks.
    unsafe { command.pre_exec(clear) };
}

fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}

/// All processes below `root`, as /proc has them now.
fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && let Some(parent) = parent(pid)
        {
            children.entry(parent).or_default().push(pid);
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

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; after it come state and parent.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// Whom the workload runs as: only root can choose.
pub(super) fn workload_ids(spec: &SandboxSpec) -> (u32, u32) {
    if rustix::process::geteuid().is_root() {
        (spec.uid, spec.gid)
    } else {
        (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    }
}

pub(super) fn make_workspace(path: &Path, spec: &SandboxSpec) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    let (uid, gid) = workload_ids(spec);
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
}
