//! A supervisor that something outside kills. Nobody inside can do that, so it is done from here,
//! where the supervisor is a process of this host and its pid is known: the one that has called on the
//! callback socket.

use cofferdam_proto::compute::v1::{SandboxState, TerminationReason};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::case::{Case, Stop, Verdict, ensure, run, skip};
use crate::needs::Need;
use crate::suite::Suite;

pub(super) const CASES: &[Case] = &[Case {
    id: "core.ending.signaled",
    source: "TerminationReason.SIGNALED, docs/supervisor",
    says: "Something outside killed the supervisor: the sandbox is STOPPED, SIGNALED with the signal.",
    fix: "tell a death by a signal from an exit, and pass the signal's number on",
    needs: &[Need::Supervised],
    run: run!(signaled),
}];

async fn signaled(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let Some(pid) = session.peer() else {
        skip!("who calls on the byte stream is no process of this host");
    };
    kill_supervisor(pid)?;
    suite.step("waiting for the end of a sandbox whose supervisor was killed");
    let sandbox = subject.observed(&driver, SandboxState::Stopped).await?;
    let ended = sandbox.termination.unwrap_or_default();
    let reason = ended.reason();
    ensure!(
        reason == TerminationReason::Signaled && ended.signal == 9,
        "its supervisor was killed by signal 9, and the termination is {} with signal {} and \
         exit_code {}",
        reason.as_str_name(),
        ended.signal,
        ended.exit_code
    );
    Ok(())
}

/// A relay calls in its supervisor's place: that is left alone.
fn kill_supervisor(pid: Pid) -> Verdict {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(errno) => skip!("who calls on the byte stream is out of reach here: {errno}"),
    };
    // Looked at after it is held: from here on the pid is nobody else's.
    if !is_supervisor(pid) {
        skip!("who calls on the byte stream is a relay, and the supervisor is not to be seen here");
    }
    match pidfd_send_signal(process, Signal::KILL) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => skip!("the suite may not kill the supervisor: it is another user's"),
        Err(errno) => Err(Stop::failed(format!(
            "its supervisor cannot be killed: {errno}"
        ))),
    }
}

/// By its arguments, which everybody may see: docs/supervisor.md.
fn is_supervisor(pid: Pid) -> bool {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let arguments = std::fs::read(path).unwrap_or_default();
    let mut arguments = arguments.split(|byte| *byte == 0);
    arguments.any(|argument| argument == b"--callback")
}
