//! The first half of the shim, with the driver's identity: clones the second half into its
//! namespaces, receives the plan, opens what only the driver may open, maps the ids, and goes.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Signal, pidfd_send_signal, umask};

use super::failure::Context;
use super::handles::Handles;
use super::lifecycle;
use super::sys::{self, Fork};
use super::{namespaces, proc, records};
use crate::sandbox::frame::{self, Received};
use crate::sandbox::layout::SHIM_RECORD;
use crate::sandbox::plan::ShimPlan;
use crate::sandbox::record::ProcessId;
use crate::sandbox::report::{Failure, LaunchReport, Stage};

/// Serves one launch; returns the exit code.
pub(crate) fn run() -> u8 {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return 1;
    };
    let mut socket = UnixStream::from(socket);
    match launch(&mut socket) {
        Ok(()) => 0,
        Err(failure) => {
            report(&socket, &LaunchReport::Failed(failure));
            1
        }
    }
}

/// Writes the one answer. A driver that is gone will find out by observing.
pub(crate) fn report(mut socket: &UnixStream, report: &LaunchReport) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = socket.write_all(&line);
    }
}

fn launch(socket: &mut UnixStream) -> Result<(), Failure> {
    umask(Mode::from_raw_mode(0o077));
    // What no plan changes comes before the plan, since that may be long in coming.
    let early = SecondHalf::clone(socket, namespaces::USUAL);
    let received = frame::receive(socket).at(Stage::ReadPlan, "launch socket")?;
    let plan: ShimPlan = serde_json::from_slice(&received.plan)
        .map_err(|error| Failure::own(Stage::ReadPlan, error.to_string()))?;
    if let Some(problem) = plan.problem() {
        return Err(Failure::own(Stage::ReadPlan, problem));
    }
    let flags = namespaces::flags(&plan);
    // Another one sees its channel close, which nobody may hold on to, and goes. A failure is met
    // again, and told.
    let early = early.ok().filter(|second| second.flags == flags);
    let second = match early {
        Some(second) => second,
        None => SecondHalf::clone(socket, flags)?,
    };
    let outcome = second.equip(&plan, received);
    if outcome.is_err() {
        // It may be gone already; it cannot have become anything that needs cleaning up.
        let _ = pidfd_send_signal(&second.pidfd, Signal::KILL);
    }
    outcome
}

/// The process that becomes the sandbox's shim, in its namespaces, waiting for what it needs.
struct SecondHalf {
    pid: i32,
    pidfd: OwnedFd,
    flags: u64,
    channel: UnixStream,
}

impl SecondHalf {
    fn clone(socket: &UnixStream, flags: u64) -> Result<Self, Failure> {
        let stage = Stage::CreateNamespaces;
        let (channel, far) = UnixStream::pair().at(stage, "channel")?;
        match sys::clone3(flags, None).at(stage, "")? {
            Fork::Child => {
                drop(channel);
                let socket = socket.try_clone().unwrap_or_else(|_| sys::exit_now(1));
                sys::exit_now(lifecycle::run(far, socket, flags))
            }
            Fork::Parent { pid, pidfd } => Ok(SecondHalf {
                pid,
                pidfd,
                flags,
                channel,
            }),
        }
    }

    /// Opens what only the driver may open, gives the clone its ids, tells the driver who it is,
    /// and lets it go on.
    fn equip(&self, plan: &ShimPlan, received: Received) -> Result<(), Failure> {
        let supervisor = received.descriptors.into_iter().next();
        let supervisor =
            supervisor.ok_or_else(|| Failure::own(Stage::ReadPlan, "no supervisor"))?;
        let handles = Handles::open(plan, supervisor)?;
        let state_dir = openat(
            CWD,
            &plan.state_dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .at(Stage::OpenStateDir, plan.state_dir.display())?;
        namespaces::write_maps(&handles.host_proc, self.pid, plan)?;
        let start_time = proc::start_time(&handles.host_proc, self.pid)
            .at(Stage::WriteRecord, "shim start time")?;
        let id = ProcessId {
            pid: self.pid,
            start_time,
        };
        records::write(&state_dir, SHIM_RECORD, &id)?;
        let (text, bootstrap) = (&received.plan, &received.bootstrap);
        let descriptors = handles.descriptors();
        frame::send_header(
            self.channel.as_fd(),
            text.len(),
            bootstrap.len(),
            &descriptors,
        )
        .and_then(|()| (&self.channel).write_all(text))
        .and_then(|()| (&self.channel).write_all(bootstrap))
        .at(Stage::CreateNamespaces, "release")
    }
}
