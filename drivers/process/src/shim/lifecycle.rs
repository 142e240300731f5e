//! One sandbox's life: standing up, and then which init runs, is asked to stop, or has ended.
//!
//! ```text
//!            start                    stop                  init gone
//! Stopped ─────────► Running ───────────────────► Stopping ───────────► Stopped
//!    ▲                  │ init gone                                       │
//!    └──────────────────┴─────────────────────────────────────────────────┘
//! deadline, terminate: kill what runs, leave the record, end the shim
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, setsid, waitid};

use super::failure::Context;
use super::handles::Handles;
use super::init::{self, Init};
use super::records::{self, now_unix_ms};
use super::{namespaces, outer, proc, rootfs, serve, sys};
use crate::sandbox::control::Status;
use crate::sandbox::frame;
use crate::sandbox::layout::{CONTROL_SOCKET, EXIT_RECORD, RUN_RECORD};
use crate::sandbox::plan::ShimPlan;
use crate::sandbox::record::{ExitCause, ExitRecord, ProcessId, RECORD_VERSION, RunRecord};
use crate::sandbox::report::{Failure, LaunchReport, Stage, Up};

/// The second half: waits for what it needs, stands the sandbox up, answers, serves until the end.
pub(crate) fn run(mut channel: UnixStream, socket: UnixStream, flags: u64) -> i32 {
    let loopback = match flags & sys::NEW_NET {
        0 => Ok(()),
        _ => sys::loopback_up(),
    };
    // Nothing comes when there is no plan after all, or when the first half failed, which it
    // reports itself.
    let Ok(received) = frame::receive(&mut channel) else {
        return 1;
    };
    drop(channel);
    let Ok(plan) = serde_json::from_slice::<ShimPlan>(&received.plan) else {
        return 1;
    };
    let Some(handles) = Handles::received(&plan, received.descriptors) else {
        return 1;
    };
    let bootstrap = received.bootstrap;
    let loopback = loopback.at(Stage::LoopbackUp, "");
    match loopback.and_then(|()| stand_up(plan, handles, &bootstrap)) {
        Ok((lifecycle, watched, up)) => {
            drop(bootstrap);
            outer::report(&socket, &LaunchReport::Up(up));
            drop(socket);
            // Standard input was the launch socket too.
            let _ = sys::place(lifecycle.handles.null.as_fd(), 0);
            serve::run(lifecycle, watched)
        }
        Err(failure) => {
            outer::report(&socket, &LaunchReport::Failed(failure));
            1
        }
    }
}

fn stand_up(
    plan: ShimPlan,
    mut handles: Handles,
    bootstrap: &[u8],
) -> Result<(Lifecycle, serve::Watched, Up), Failure> {
    let _ = rustix::thread::set_name(c"cofferdam-shim");
    setsid().at(Stage::CreateNamespaces, "setsid")?;
    let signals = sys::signal_fd(&serve::SIGNALS).at(Stage::CreateNamespaces, "signals")?;
    // Without it the deadline would not hold, so it comes before there is anything to hold.
    let deadline = serve::arm(plan.expire_time_unix_ms)?;
    rootfs::make_private()?;
    handles.confine_callback(&plan)?;
    let pending = init::spawn(&plan, &handles, bootstrap)?;
    if let Err(failure) = build(&plan) {
        pending.abandon();
        return Err(failure);
    }
    let init = pending.release(&handles)?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let start_time = proc::start_time(&handles.host_proc, pid).at(Stage::WriteRecord, "shim")?;
    let up = Up {
        shim: ProcessId { pid, start_time },
        init: init.id,
        landlock_abi: init.landlock_abi,
    };
    let mut lifecycle = Lifecycle::new(plan, handles);
    lifecycle.started(init)?;
    Ok((lifecycle, serve::Watched { signals, deadline }, up))
}

/// Everything but the init.
fn build(plan: &ShimPlan) -> Result<(), Failure> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let sources = rootfs::open_sources(plan)?;
    namespaces::become_inner_root(&plan.ids)?;
    rustix::system::sethostname(plan.hostname.as_bytes()).at(Stage::SetHostname, &plan.hostname)?;
    rootfs::build_and_enter(plan, sources)
}

/// The state of one sandbox, and what can be done to it.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    plan: ShimPlan,
    pub(crate) handles: Handles,
    running: Option<Running>,
    generation: u64,
    last_exit: Option<ExitRecord>,
    /// The shim goes when no init is left.
    pub(crate) ending: bool,
    /// As long as something is being killed.
    quota_is_lifted: bool,
}

#[derive(Debug)]
struct Running {
    record: RunRecord,
    pidfd: OwnedFd,
    /// Who ended it, once somebody has begun to.
    cause: Option<ExitCause>,
    kill_at: Option<Instant>,
}

impl Lifecycle {
    fn new(plan: ShimPlan, handles: Handles) -> Self {
        Lifecycle {
            plan,
            handles,
            running: None,
            generation: 0,
            last_exit: None,
            ending: false,
            quota_is_lifted: false,
        }
    }

    fn started(&mut self, init: Init) -> Result<(), Failure> {
        let record = RunRecord {
            version: RECORD_VERSION,
            generation: self.generation + 1,
            init: init.id,
            started_at_unix_ms: now_unix_ms(),
        };
        let written = records::write(&self.handles.run_dir, RUN_RECORD, &record);
        self.generation = record.generation;
        self.running = Some(Running {
            record,
            pidfd: init.pidfd,
            cause: None,
            kill_at: None,
        });
        if written.is_err() {
            // A driver that restarts could not find it.
            self.kill(ExitCause::Killed);
        }
        written
    }

    /// Starts another init in the mounts the last one left.
    pub(crate) fn start(&mut self, bootstrap: &[u8]) -> Result<(), Failure> {
        let refuse = |why: &str| Err(Failure::own(Stage::Control, why));
        if self.running.is_some() {
            return refuse("the sandbox is running");
        }
        if self.ending || self.expires_in().is_some_and(|left| left.is_zero()) {
            return refuse("the sandbox has expired");
        }
        self.restore_quota()?;
        let init = init::spawn(&self.plan, &self.handles, bootstrap)?.release(&self.handles)?;
        self.started(init)
    }

    /// SIGTERM now, SIGKILL after the grace. A second stop can only shorten the first.
    pub(crate) fn stop(&mut self, grace: Duration) {
        let Some(running) = &mut self.running else {
            return;
        };
        if grace.is_zero() {
            return self.kill(ExitCause::Stopped);
        }
        running.cause.get_or_insert(ExitCause::Stopped);
        let kill_at = Instant::now() + grace;
        running.kill_at = Some(
            running
                .kill_at
                .map_or(kill_at, |earlier| earlier.min(kill_at)),
        );
        // It may have ended just now; its pidfd says so.
        let _ = pidfd_send_signal(&running.pidfd, Signal::TERM);
    }

    /// SIGKILL to PID 1, which takes its pid namespace along.
    pub(crate) fn kill(&mut self, cause: ExitCause) {
        if let Some(running) = &mut self.running {
            running.cause.get_or_insert(cause);
            running.kill_at = None;
            let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
            self.lift_quota();
        }
    }

    /// So that what has been killed can end, see [`crate::sandbox::plan::CpuQuota`].
    fn lift_quota(&mut self) {
        if let (Some(quota), Some(file)) = (&self.plan.cgroup.cpu_quota, &self.handles.cpu_quota) {
            self.quota_is_lifted = true;
            // Without it all ends in the time that the quota allows.
            let _ = rustix::io::pwrite(file, quota.unlimited.as_bytes(), 0);
        }
    }

    fn restore_quota(&mut self) -> Result<(), Failure> {
        if self.quota_is_lifted
            && let (Some(quota), Some(file)) =
                (&self.plan.cgroup.cpu_quota, &self.handles.cpu_quota)
        {
            rustix::io::pwrite(file, quota.limited.as_bytes(), 0)
                .at(Stage::CpuQuota, quota.file.display())?;
            self.quota_is_lifted = false;
        }
        Ok(())
    }

    /// Kills what runs, and ends the shim.
    pub(crate) fn end(&mut self, cause: ExitCause) {
        self.ending = true;
        self.kill(cause);
        if self.running.is_none() && cause == ExitCause::Deadline {
            self.record_exit(0, cause, None, None);
        }
    }

    /// The grace is over.
    pub(crate) fn grace_over(&mut self) {
        if self.kill_in().is_some_and(|left| left.is_zero()) {
            self.kill(ExitCause::Stopped);
        }
    }

    /// The init's pidfd is readable: take the exit status and leave the record.
    pub(crate) fn reap(&mut self) {
        let Some(running) = &self.running else { return };
        let flags = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(running.pidfd.as_fd()), flags) {
            Ok(None) => return,
            Ok(Some(status)) => Some(status),
            Err(_) => None,
        };
        // A supervisor that keeps the deadline too may be seen to end before the timer is read.
        let expired = self.expires_in().is_some_and(|left| left.is_zero());
        let own = if expired {
            ExitCause::Deadline
        } else {
            ExitCause::Own
        };
        let cause = running.cause.unwrap_or(own);
        let code = status.as_ref().and_then(|status| status.exit_status());
        let signal = status
            .as_ref()
            .and_then(|status| status.terminating_signal());
        self.record_exit(running.record.init.pid, cause, code, signal);
        self.running = None;
        records::remove(&self.handles.run_dir, RUN_RECORD);
    }

    fn record_exit(&mut self, pid: i32, cause: ExitCause, code: Option<i32>, signal: Option<i32>) {
        let exit = ExitRecord {
            version: RECORD_VERSION,
            generation: self.generation,
            pid,
            cause,
            code,
            signal,
            at_unix_ms: now_unix_ms(),
        };
        // Without the record the driver reports the sandbox as lost, which is then true.
        let _ = records::write(&self.handles.run_dir, EXIT_RECORD, &exit);
        self.last_exit = Some(exit);
    }

    /// Whether everything is over.
    pub(crate) fn ended(&self) -> bool {
        self.ending && self.running.is_none()
    }

    /// Leaves no socket that nobody answers.
    pub(crate) fn close(self) {
        records::remove(&self.handles.run_dir, CONTROL_SOCKET);
    }

    /// Whether an init of this generation runs.
    pub(crate) fn runs(&self, generation: u64) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.record.generation == generation)
    }

    /// How many inits there have been.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Readable when the init has ended.
    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        self.running.as_ref().map(|running| &running.pidfd)
    }

    /// Time until a stop becomes a kill.
    pub(crate) fn kill_in(&self) -> Option<Duration> {
        let kill_at = self.running.as_ref()?.kill_at?;
        Some(kill_at.saturating_duration_since(Instant::now()))
    }

    /// Time until the deadline.
    pub(crate) fn expires_in(&self) -> Option<Duration> {
        let at = self.plan.expire_time_unix_ms;
        (at != 0).then(|| Duration::from_millis(at.saturating_sub(now_unix_ms())))
    }

    pub(crate) fn set_expire(&mut self, expire_time_unix_ms: u64) {
        self.plan.expire_time_unix_ms = expire_time_unix_ms;
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            running: self.running.as_ref().map(|running| running.record),
            stopping: self
                .running
                .as_ref()
                .is_some_and(|running| running.cause.is_some()),
            generation: self.generation,
            last_exit: self.last_exit,
            expire_time_unix_ms: self.plan.expire_time_unix_ms,
        }
    }
}
