//! From a program to a running process: descriptors, the plan, the clone.
#![allow(unsafe_code, reason = "clones")]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use cofferdam_proto::supervisor::v1::OutputStream;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fcntl_getfl, fcntl_setfl, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::plan::{LaunchPlan, Program, Stage, User};
use super::shim::shim_main;
use super::source::{Sink, Source};
use super::stack::Stacks;
use crate::pty;
use crate::readiness;
use crate::reap::{Reaper, ShimLife};
use crate::sys;

/// How a process talks to the world.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stdio {
    Pipes { stdin: bool },
    Terminal { size: Winsize },
}

/// Our ends of a process's stdio, none of them blocking, watched by the runtime.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) sources: [Option<Source>; 2],
    pub(super) sink: Option<Sink>,
    pub(super) terminal: Option<Arc<OwnedFd>>,
}

/// A shim on its way.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) shim: i32,
    pub(super) life: watch::Receiver<ShimLife>,
    pub(super) report: AsyncFd<OwnedFd>,
    pub(super) streams: Streams,
    pub(super) borrowed: Borrowed,
}

/// What shim and child use of our memory. Dropping it before they have left would pull the ground
/// from under them, so that must be said explicitly by [`Borrowed::release`]; else it is leaked.
#[derive(Debug)]
pub(super) struct Borrowed(Option<(LaunchPlan, Stacks)>);

impl Borrowed {
    /// The child has left our memory (or never was), and the shim no longer reads its plan.
    pub(super) fn release(&mut self) -> Option<Stacks> {
        self.0.take().map(|(_plan, stacks)| stacks)
    }

    /// The main process's pid as the child itself wrote it; 0 if there was none.
    pub(super) fn child_pid(&self) -> i32 {
        let load = |(plan, _): &(LaunchPlan, Stacks)| {
            plan.raw.child_pid.load(std::sync::atomic::Ordering::SeqCst)
        };
        self.0.as_ref().map_or(0, load)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

/// Makes the shim, which makes the process. What becomes of it is told on the report pipe.
pub(super) fn launch(
    program: Program,
    stdio: Stdio,
    reaper: &Reaper,
) -> Result<Launched, (Stage, io::Error)> {
    let streams = streams(stdio, program.user).map_err(|error| (Stage::Terminal, error))?;
    clone_shim(program, streams, reaper).map_err(|error| (Stage::Clone, error))
}

fn streams(stdio: Stdio, user: User) -> io::Result<(Streams, Theirs)> {
    match stdio {
        Stdio::Pipes { stdin } => pipes(stdin, user.differs.then_some((user.uid, user.gid))),
        Stdio::Terminal { size } => {
            let pty = pty::open(size, user)?;
            let master = Arc::new(pty.master);
            // A copy, since epoll takes a descriptor only once.
            let writer = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
            let source = Source::new(Arc::clone(&master), OutputStream::Stdout, true)?;
            let streams = Streams {
                sources: [Some(source), None],
                sink: Some(Sink::new(writer)?),
                terminal: Some(master),
            };
            Ok((streams, Theirs::Terminal(pty.slave)))
        }
    }
}

/// Nothing can fail any more once the shim is there.
fn clone_shim(
    program: Program,
    (streams, theirs): (Streams, Theirs),
    reaper: &Reaper,
) -> io::Result<Launched> {
    let (report, report_end) = pipe_with(PipeFlags::CLOEXEC)?;
    set_nonblocking(&report)?;
    let report = readiness::watch(report, Interest::READABLE)?;
    let terminal = matches!(theirs, Theirs::Terminal(_));
    let mut plan = LaunchPlan::new(program, report_end.as_raw_fd(), theirs.raw(), terminal);
    let stacks = Stacks::new()?;
    plan.raw.child_stack_top = stacks.child_top();
    let argument = ptr::from_mut(&mut *plan.raw).cast();

    let clone = || {
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        // SAFETY: the shim's stack is fresh, and it and the plan outlive the shim's use of them
        // (see `Borrowed`). The flags set neither thread-local storage nor ids.
        let pid = unsafe { sys::clone(flags, stacks.shim_top(), shim_main, argument) };
        if pid < 0 {
            Err(io::Error::from_raw_os_error(-pid as i32))
        } else {
            Ok(pid as i32)
        }
    };
    let (shim, life) = reaper.register(clone)?;
    // The shim has copies of their ends by now; ours of them close here.
    drop((report_end, theirs));
    Ok(Launched {
        shim,
        life,
        report,
        streams,
        borrowed: Borrowed(Some((plan, stacks))),
    })
}

enum Theirs {
    Pipes {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Terminal(OwnedFd),
}

impl Theirs {
    fn raw(&self) -> [RawFd; 3] {
        match self {
            Self::Pipes {
                stdin,
                stdout,
                stderr,
            } => [stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()],
            Self::Terminal(slave) => [slave.as_raw_fd(); 3],
        }
    }
}

fn pipes(stdin: bool, owner: Option<(u32, u32)>) -> io::Result<(Streams, Theirs)> {
    let (stdout, stdout_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, stderr_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdin, stdin_end) = if stdin {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        set_nonblocking(&writer)?;
        (Some(writer), reader)
    } else {
        (None, empty_input()?)
    };
    if let Some((uid, gid)) = owner {
        // So that the workload can open /dev/stdout and its like. Not being able to give them away
        // takes only that.
        let piped_stdin = stdin.is_some().then_some(&stdin_end);
        for end in [&stdout_end, &stderr_end].into_iter().chain(piped_stdin) {
            let _ = fchown(end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
    set_nonblocking(&stdout)?;
    set_nonblocking(&stderr)?;
    let stdout = Source::new(Arc::new(stdout), OutputStream::Stdout, false)?;
    let stderr = Source::new(Arc::new(stderr), OutputStream::Stderr, false)?;
    let streams = Streams {
        sources: [Some(stdout), Some(stderr)],
        sink: stdin.map(Sink::new).transpose()?,
        terminal: None,
    };
    let theirs = Theirs::Pipes {
        stdin: stdin_end,
        stdout: stdout_end,
        stderr: stderr_end,
    };
    Ok((streams, theirs))
}

/// `/dev/null`, or where there is none something else that is at its end.
fn empty_input() -> io::Result<OwnedFd> {
    match open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(null) => Ok(null),
        Err(_) => Ok(pipe_with(PipeFlags::CLOEXEC)?.0),
    }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?)
}
