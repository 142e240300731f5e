//! The first half of the shim, with the driver's identity: receives the plan, opens what only the
//! driver may open, clones the second half into its namespaces, maps its ids, and goes.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal, umask};

use super::failure::Context;
use super::handles::Handles;
use super::lifecycle::{self, Begin};
use super::sys::{self, Fork};
use super::{namespaces, proc, records};
use crate::sandbox::frame;
use crate::sandbox::layout::SHIM_RECORD;
use crate::sandbox::plan::ShimPlan;
use crate::sandbox::record::ProcessId;
use crate::sandbox::report::{Failure, LaunchReport, Stage};

/// Serves one launch.
pub(crate) fn run() -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let mut socket = UnixStream::from(socket);
    match launch(&mut socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&socket, &LaunchReport::Failed(failure));
            ExitCode::FAILURE
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
    let received = frame::receive(socket).at(Stage::ReadPlan, "launch socket")?;
    let plan: ShimPlan = serde_json::from_slice(&received.plan)
        .map_err(|error| Failure::own(Stage::ReadPlan, error.to_string()))?;
    if let Some(problem) = plan.problem() {
        return Err(Failure::own(Stage::ReadPlan, problem));
    }
    umask(Mode::from_raw_mode(0o077));
    let handles = Handles::open(&plan, received.supervisor)?;
    let state_dir = openat(
        CWD,
        &plan.state_dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Stage::OpenStateDir, plan.state_dir.display())?;
    let (released, release) = pipe_with(PipeFlags::CLOEXEC).at(Stage::CreateNamespaces, "pipe")?;
    match sys::clone3(namespaces::flags(&plan), None).at(Stage::CreateNamespaces, "")? {
        Fork::Child => {
            drop((release, state_dir));
            let socket = socket.try_clone().unwrap_or_else(|_| sys::exit_now(1));
            let bootstrap = received.bootstrap;
            sys::exit_now(lifecycle::run(Begin {
                plan,
                bootstrap,
                handles,
                socket,
                released,
            }))
        }
        Fork::Parent { pid, pidfd } => {
            drop(released);
            let outcome = introduce(pid, &plan, &handles, &state_dir, &release);
            if outcome.is_err() {
                // It may be gone already; it cannot have become anything that needs cleaning up.
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            }
            outcome
        }
    }
}

/// Gives the clone its ids, tells the driver who it is, and lets it go on.
fn introduce(
    pid: i32,
    plan: &ShimPlan,
    handles: &Handles,
    state_dir: &OwnedFd,
    release: &OwnedFd,
) -> Result<(), Failure> {
    namespaces::write_maps(&handles.host_proc, pid, plan)?;
    let start_time =
        proc::start_time(&handles.host_proc, pid).at(Stage::WriteRecord, "shim start time")?;
    records::write(state_dir, SHIM_RECORD, &ProcessId { pid, start_time })?;
    rustix::io::write(release, b"1").at(Stage::CreateNamespaces, "release")?;
    Ok(())
}
