//! One sandbox: looked at, described in the contract's words, and reported in the order in which it
//! was seen.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cofferdam_driver_sdk::Observations;
use cofferdam_driver_sdk::capabilities::termination;
use cofferdam_driver_sdk::proto::{
    Condition, ConditionStatus, ConditionType, Sandbox, SandboxState, Termination,
    TerminationReason as Reason,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::keeper::{Cause, End, now_unix_ms};
use crate::platform::{self, Observation};
use crate::record::Record;

/// A launch may be on its way whose driver was killed: many times what one takes.
const HALF_MADE_PATIENCE: Duration = Duration::from_secs(5);

/// A sandbox of this driver. What is here is also on disk, or can be observed.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) dir: PathBuf,
    /// Held by whoever makes, starts, stops or destroys it. The SDK lets only one such call in at
    /// a time, but work goes on here when its call has been dropped.
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// Wakes the watcher: something was done.
    pub(crate) news: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    half_made_until: Option<Instant>,
    is_watched: bool,
    is_being_deleted: bool,
    is_gone: bool,
}

impl Tracked {
    /// One that is about to be made, by whoever holds `operation`.
    pub(crate) fn new(dir: PathBuf, record: Record) -> Self {
        Self {
            dir,
            operation: tokio::sync::Mutex::default(),
            news: Notify::new(),
            inner: Mutex::new(Inner {
                record,
                half_made_until: None,
                is_watched: false,
                is_being_deleted: false,
                is_gone: false,
            }),
        }
    }

    /// One that was found.
    pub(crate) fn found(dir: PathBuf, record: Record) -> Self {
        let tracked = Self::new(dir, record);
        tracked.lock().half_made_until = Some(Instant::now() + HALF_MADE_PATIENCE);
        tracked
    }

    pub(crate) fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// For later boots: a restarted gateway may have its sockets elsewhere.
    pub(crate) fn set_callback_directory(&self, directory: PathBuf) -> Record {
        let mut inner = self.lock();
        inner.record.callback_directory = directory;
        inner.record.clone()
    }

    /// Looks, and reports what was seen; none once it has been removed. One step under a lock, so
    /// that what is reported is in the order in which it was seen. Blocks briefly.
    pub(crate) fn look(&self, log: &Observations) -> Option<(Sandbox, Observation)> {
        let inner = self.lock();
        if inner.is_gone {
            return None;
        }
        // Nothing is written into what is being removed.
        let observation = match inner.is_being_deleted {
            true => platform::observe(&self.dir),
            false => platform::observe_and_record(&self.dir),
        };
        let is_being_made = self.operation.try_lock().is_err()
            || inner
                .half_made_until
                .is_some_and(|until| Instant::now() < until);
        let now = now_unix_ms();
        let mut sandbox = describe(&inner.record, &observation, is_being_made, now);
        if inner.is_being_deleted {
            sandbox.state = SandboxState::Deleting.into();
            sandbox.termination = None;
        }
        let newest = log.record(&inner.record.gateway_id, sandbox.clone());
        Some((newest.unwrap_or(sandbox), observation))
    }

    /// From now on that is all that is said of it: what is half removed looks like anything.
    pub(crate) fn is_being_deleted(&self, log: &Observations) {
        self.lock().is_being_deleted = true;
        let _ = self.look(log);
    }

    /// It has been removed: nothing is reported any more.
    pub(crate) fn is_gone(&self) {
        self.lock().is_gone = true;
        self.news.notify_waiters();
    }

    /// True for the one who is to watch it.
    pub(crate) fn begin_watching(&self) -> bool {
        !std::mem::replace(&mut self.lock().is_watched, true)
    }

    pub(crate) fn end_watching(&self) {
        self.lock().is_watched = false;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From what the platform says to the contract's words. Pure.
fn describe(
    record: &Record,
    observation: &Observation,
    is_being_made: bool,
    now_unix_ms: u64,
) -> Sandbox {
    let expire_time_unix_ms = record.plan.expire_time_unix_ms;
    let (state, boot, ended) = match observation {
        Observation::Absent if is_being_made => (SandboxState::Creating, None, None),
        Observation::Absent => {
            let why = termination(
                Reason::SupervisorStartFailed,
                "the making of the sandbox was interrupted",
                record.create_time_unix_ms,
            );
            (SandboxState::FailedState, None, Some(why))
        }
        Observation::Running(boot) => (SandboxState::Running, Some(boot), None),
        Observation::Ended(boot, end) => match ended(end) {
            // Stopped before its deadline or at it: after it, it must not run again.
            (SandboxState::Stopped, _) if now_unix_ms >= expire_time_unix_ms => {
                let at = end.time_unix_ms.max(expire_time_unix_ms);
                (SandboxState::FailedState, Some(boot), Some(expired(at)))
            }
            (state, why) => (state, Some(boot), Some(why)),
        },
    };
    Sandbox {
        sandbox_id: record.sandbox_id.clone(),
        state: state.into(),
        termination: ended,
        conditions: vec![started(state, boot.map_or(0, |boot| boot.time_unix_ms))],
        // Counted, so that of two observations the later one is known.
        boots: boot.map_or(1, |boot| boot.boot),
        create_time_unix_ms: record.create_time_unix_ms,
        start_time_unix_ms: boot.map_or(0, |boot| boot.time_unix_ms),
        platform_id: boot.map_or_else(String::new, |boot| boot.keeper.pid.to_string()),
        stream: "directory".to_owned(),
        weaknesses: record.plan.weaknesses.clone(),
        ..Sandbox::default()
    }
}

fn started(state: SandboxState, time_unix_ms: u64) -> Condition {
    let status = match state {
        SandboxState::Running => ConditionStatus::True,
        SandboxState::Creating => ConditionStatus::InProgress,
        _ => ConditionStatus::False,
    };
    Condition {
        r#type: ConditionType::SupervisorStarted.into(),
        status: status.into(),
        change_time_unix_ms: time_unix_ms,
        ..Condition::default()
    }
}

/// STOPPED can be started again; FAILED is for good.
fn ended(end: &End) -> (SandboxState, Termination) {
    let at = end.time_unix_ms;
    match &end.cause {
        Cause::Asked => (
            SandboxState::Stopped,
            termination(Reason::StoppedByRequest, "stopped", at),
        ),
        Cause::Own {
            code: Some(code), ..
        } => (
            SandboxState::Stopped,
            Termination {
                exit_code: *code,
                ..termination(
                    Reason::Exited,
                    format!("the supervisor ended with code {code}"),
                    at,
                )
            },
        ),
        Cause::Own { code: None, signal } => (
            SandboxState::Stopped,
            Termination {
                signal: signal.map_or(0, i32::unsigned_abs),
                ..termination(Reason::Signaled, "the supervisor was killed", at)
            },
        ),
        Cause::Deadline => (SandboxState::FailedState, expired(at)),
        Cause::Lost => (
            SandboxState::FailedState,
            termination(
                Reason::PlatformLost,
                "the keeper is gone without a word: the host was restarted, or somebody killed it",
                at,
            ),
        ),
    }
}

fn expired(at_unix_ms: u64) -> Termination {
    termination(Reason::Deadline, "the expire time has passed", at_unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::Boot;
    use crate::plan::Plan;
    use crate::process::ProcessId;

    fn record() -> Record {
        Record {
            version: crate::record::VERSION,
            sandbox_id: "sbx-1".to_owned(),
            gateway_id: "gw".to_owned(),
            spec_digest: String::new(),
            create_time_unix_ms: 5,
            callback_directory: PathBuf::new(),
            plan: Plan {
                uid: 1,
                gid: 1,
                nice: 0,
                expire_time_unix_ms: 100,
                weaknesses: vec!["NO ISOLATION".to_owned()],
            },
        }
    }

    fn boot() -> Boot {
        Boot {
            boot: 2,
            keeper: ProcessId::of(std::process::id().cast_signed()).unwrap(),
            time_unix_ms: 7,
        }
    }

    fn ended_at_9(cause: Cause, now_unix_ms: u64) -> Sandbox {
        let end = End {
            boot: 2,
            cause,
            time_unix_ms: 9,
        };
        let observation = Observation::Ended(boot(), end);
        describe(&record(), &observation, false, now_unix_ms)
    }

    fn seen(cause: Cause) -> (SandboxState, Reason) {
        let sandbox = ended_at_9(cause, 10);
        assert_eq!((sandbox.boots, sandbox.start_time_unix_ms), (2, 7));
        let why = sandbox.termination.as_ref().unwrap();
        assert_eq!(why.time_unix_ms, 9);
        (sandbox.state(), why.reason())
    }

    #[test]
    fn only_what_can_be_started_again_is_stopped() {
        let own = |code, signal| Cause::Own { code, signal };
        let stopped = SandboxState::Stopped;
        let failed = SandboxState::FailedState;
        assert_eq!(seen(Cause::Asked), (stopped, Reason::StoppedByRequest));
        assert_eq!(seen(own(Some(0), None)), (stopped, Reason::Exited));
        assert_eq!(seen(own(None, Some(9))), (stopped, Reason::Signaled));
        assert_eq!(seen(Cause::Deadline), (failed, Reason::Deadline));
        assert_eq!(seen(Cause::Lost), (failed, Reason::PlatformLost));
    }

    #[test]
    fn what_is_stopped_fails_at_its_deadline() {
        let before = ended_at_9(Cause::Asked, 99);
        assert_eq!(before.state(), SandboxState::Stopped);
        let after = ended_at_9(Cause::Asked, 100);
        assert_eq!(after.state(), SandboxState::FailedState);
        let why = after.termination.unwrap();
        assert_eq!((why.reason(), why.time_unix_ms), (Reason::Deadline, 100));
    }

    #[test]
    fn what_is_absent_is_being_made_or_was_never_finished() {
        let making = describe(&record(), &Observation::Absent, true, 10);
        assert_eq!(making.state(), SandboxState::Creating);
        assert_eq!(making.boots, 1);
        let interrupted = describe(&record(), &Observation::Absent, false, 10);
        assert_eq!(interrupted.state(), SandboxState::FailedState);
    }

    #[test]
    fn a_running_one_says_what_it_lacks() {
        let running = describe(&record(), &Observation::Running(boot()), false, 10);
        assert_eq!(running.state(), SandboxState::Running);
        assert_eq!(running.weaknesses, ["NO ISOLATION"]);
        assert!(running.termination.is_none());
    }
}
