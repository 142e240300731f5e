//! How an execution ended: pure rules from what was seen to a state, a reason and a sentence.
//!
//! No success is invented here: only an exit event with code 0, of a process that nobody was killing
//! in a sandbox that nobody had asked to end, is `Succeeded`. What was asked first says why it ended;
//! the exit code or signal that came of it stays on record.

use cofferdam_proto::supervisor::v1::{self as wire, process_exited::Result as Exit};

use super::stdin::StdinGap;
use crate::model::{Ending, ExecutionReason, ExecutionState, SandboxFacts, SandboxState};
use crate::state_dir::Trouble;
use crate::units::show_duration_ms;

/// Why the gateway itself is ending the execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kill {
    Timeout {
        after_ms: u64,
        /// It was waiting for its output to be stored.
        stalled: Option<Trouble>,
    },
    Canceled,
    CallerLeft,
    StdinLost(StdinGap),
}

/// What somebody wants of the sandbox, because of which whatever runs in it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Stop,
    Delete,
    Expire,
}

impl Ask {
    /// `None`: nothing was asked, or it has not come to this yet.
    pub(super) fn of(facts: &SandboxFacts) -> Option<Self> {
        let is_overdue = facts.spec.expire_time.remaining().is_zero();
        match (facts.state, facts.reason.as_str()) {
            // Its driver keeps the deadline as well, and may be the first to act.
            (_, DEADLINE) => Some(Self::Expire),
            _ if is_overdue => Some(Self::Expire),
            (SandboxState::Deleting | SandboxState::Deleted, _) => Some(Self::Delete),
            (SandboxState::Stopping, _) | (_, STOPPED_BY_REQUEST) => Some(Self::Stop),
            _ => None,
        }
    }
}

/// The reasons of a sandbox that count here.
const DEADLINE: &str = "DEADLINE";
const STOPPED_BY_REQUEST: &str = "STOPPED_BY_REQUEST";

const SIGKILL: u32 = 9;

/// The process was killed as by the kernel for want of memory, or its shell says so.
pub(super) fn may_be_oom(exited: &wire::ProcessExited) -> bool {
    match exited.result {
        Some(Exit::Signal(signal)) => signal == SIGKILL,
        Some(Exit::ExitCode(code)) => code == 128 + SIGKILL,
        _ => false,
    }
}

/// The process ended: by itself, because of `kill`, or because of what was `asked` of its sandbox
/// before its end was seen.
pub(super) fn of_exit(
    exited: &wire::ProcessExited,
    kill: Option<&Kill>,
    asked: Option<Ask>,
    oom_killed: bool,
) -> (ExecutionState, Ending) {
    let (exit_code, signal) = match &exited.result {
        Some(Exit::ExitCode(code)) => (Some(i32::try_from(*code).unwrap_or(i32::MAX)), None),
        Some(Exit::Signal(signal)) => (None, Some(*signal)),
        Some(Exit::StartFailure(failure)) => return of_start_failure(failure),
        None => {
            return lost("the supervisor reported an end without a result");
        }
    };
    let ended = |state, reason, message: String| {
        let ending = Ending {
            reason,
            message,
            exit_code,
            signal,
        };
        (state, ending)
    };
    if let Some(kill) = kill {
        let (state, reason, message) = killed(kill);
        return ended(state, reason, message);
    }
    if let Some(asked) = asked {
        let (state, reason, message) = of_ask(asked);
        return ended(state, reason, message.into());
    }
    if oom_killed {
        return ended(
            ExecutionState::Failed,
            ExecutionReason::OomKilled,
            "killed because the sandbox reached its memory limit".into(),
        );
    }
    match (exit_code, signal) {
        (Some(0), _) => ended(
            ExecutionState::Succeeded,
            ExecutionReason::Exited,
            String::new(),
        ),
        (Some(code), _) => ended(
            ExecutionState::Failed,
            ExecutionReason::Exited,
            format!("exited with code {code}"),
        ),
        (None, signal) => ended(
            ExecutionState::Failed,
            ExecutionReason::Signaled,
            format!("ended by signal {}", signal.unwrap_or_default()),
        ),
    }
}

fn of_start_failure(failure: &wire::StartFailure) -> (ExecutionState, Ending) {
    use wire::start_failure::Reason;
    let reason = match failure.reason() {
        Reason::NotFound => ExecutionReason::ProgramNotFound,
        Reason::NotExecutable => ExecutionReason::ProgramNotExecutable,
        _ => ExecutionReason::StartFailed,
    };
    let ending = Ending {
        reason,
        message: failure.message.clone(),
        exit_code: None,
        signal: None,
    };
    (ExecutionState::Failed, ending)
}

fn killed(kill: &Kill) -> (ExecutionState, ExecutionReason, String) {
    match kill {
        Kill::Timeout {
            after_ms,
            stalled: None,
        } => (
            ExecutionState::TimedOut,
            ExecutionReason::Timeout,
            format!(
                "still running after {}, its timeout",
                show_duration_ms(*after_ms)
            ),
        ),
        Kill::Timeout {
            after_ms,
            stalled: Some(trouble),
        } => (
            ExecutionState::TimedOut,
            ExecutionReason::OutputNotStored,
            format!(
                "its timeout of {} passed while its output could not be stored: {trouble}",
                show_duration_ms(*after_ms)
            ),
        ),
        Kill::Canceled => (
            ExecutionState::Canceled,
            ExecutionReason::CanceledByCaller,
            "canceled".into(),
        ),
        Kill::StdinLost(gap) => (
            ExecutionState::Failed,
            ExecutionReason::StdinLost,
            format!("{gap}; it was killed, so as not to take a part for the whole"),
        ),
        Kill::CallerLeft => (
            ExecutionState::Canceled,
            ExecutionReason::CallerLeft,
            "the caller's stream was cut and nobody attached again".into(),
        ),
    }
}

/// Killed before it ran, or without a report of its end.
pub(super) fn of_kill(kill: &Kill) -> (ExecutionState, Ending) {
    let (state, reason, message) = killed(kill);
    (state, plain(reason, message))
}

fn of_ask(asked: Ask) -> (ExecutionState, ExecutionReason, &'static str) {
    match asked {
        Ask::Stop => (
            ExecutionState::Canceled,
            ExecutionReason::SandboxStopped,
            "its sandbox was stopped",
        ),
        Ask::Delete => (
            ExecutionState::Canceled,
            ExecutionReason::SandboxDeleted,
            "its sandbox was deleted",
        ),
        Ask::Expire => (
            ExecutionState::TimedOut,
            ExecutionReason::SandboxExpired,
            "its sandbox reached the end of its lifetime",
        ),
    }
}

/// How it ended cannot be known.
pub(super) fn lost(message: impl Into<String>) -> (ExecutionState, Ending) {
    let ending = plain(ExecutionReason::SupervisorLost, message.into());
    (ExecutionState::Lost, ending)
}

/// The sandbox went away under it. `asked`: since somebody had wanted that. `started`: the process
/// may have done something.
pub(super) fn of_sandbox_end(
    facts: &SandboxFacts,
    asked: Option<Ask>,
    started: bool,
) -> (ExecutionState, Ending) {
    if let Some(asked) = asked.or_else(|| Ask::of(facts)) {
        let (state, reason, message) = of_ask(asked);
        return (state, plain(reason, message.into()));
    }
    let why = if facts.message.is_empty() {
        facts.reason.clone()
    } else {
        facts.message.clone()
    };
    match facts.reason.as_str() {
        "OOM_KILLED" => (
            ExecutionState::Failed,
            plain(ExecutionReason::OomKilled, why),
        ),
        _ if started => lost(format!("its sandbox ended: {why}")),
        _ => (
            ExecutionState::Failed,
            plain(
                ExecutionReason::SandboxFailed,
                format!("its sandbox could not be used: {}: {why}", facts.reason),
            ),
        ),
    }
}

pub(super) fn plain(reason: ExecutionReason, message: String) -> Ending {
    Ending {
        reason,
        message,
        exit_code: None,
        signal: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(result: Option<Exit>) -> wire::ProcessExited {
        wire::ProcessExited {
            result,
            ..Default::default()
        }
    }

    #[test]
    fn only_a_reported_code_zero_is_success() {
        let zero = exited(Some(Exit::ExitCode(0)));
        let by_itself = of_exit(&zero, None, None, false).0;
        assert_eq!(by_itself, ExecutionState::Succeeded);
        let others = [
            exited(None),
            exited(Some(Exit::ExitCode(1))),
            exited(Some(Exit::Signal(15))),
            exited(Some(Exit::StartFailure(wire::StartFailure::default()))),
        ];
        for other in others {
            let end = of_exit(&other, None, None, false).0;
            assert_ne!(end, ExecutionState::Succeeded);
        }
    }

    #[test]
    fn what_was_asked_of_the_sandbox_says_why_and_the_exit_stays_on_record() {
        let results = [Exit::ExitCode(0), Exit::ExitCode(3), Exit::Signal(15)];
        for (asked, state, reason) in [
            (
                Ask::Stop,
                ExecutionState::Canceled,
                ExecutionReason::SandboxStopped,
            ),
            (
                Ask::Delete,
                ExecutionState::Canceled,
                ExecutionReason::SandboxDeleted,
            ),
            (
                Ask::Expire,
                ExecutionState::TimedOut,
                ExecutionReason::SandboxExpired,
            ),
        ] {
            for result in &results {
                let seen = of_exit(&exited(Some(result.clone())), None, None, false).1;
                let (end, ending) = of_exit(&exited(Some(result.clone())), None, Some(asked), true);
                assert_eq!((end, ending.reason), (state, reason));
                let record = (ending.exit_code, ending.signal);
                assert_eq!(record, (seen.exit_code, seen.signal));
            }
        }
    }

    #[test]
    fn a_killed_process_that_exits_cleanly_is_still_timed_out() {
        let zero = exited(Some(Exit::ExitCode(0)));
        let kill = Kill::Timeout {
            after_ms: 10,
            stalled: None,
        };
        let (state, ending) = of_exit(&zero, Some(&kill), None, false);
        assert_eq!(state, ExecutionState::TimedOut);
        assert_eq!(ending.exit_code, Some(0));
    }

    #[test]
    fn an_end_without_a_result_is_lost() {
        let end = of_exit(&exited(None), None, Some(Ask::Stop), false).0;
        assert_eq!(end, ExecutionState::Lost);
    }

    #[test]
    fn a_shell_that_reports_137_may_have_lost_its_child_to_the_memory_limit() {
        assert!(may_be_oom(&exited(Some(Exit::ExitCode(137)))));
        assert!(may_be_oom(&exited(Some(Exit::Signal(9)))));
        assert!(!may_be_oom(&exited(Some(Exit::Signal(15)))));
    }
}
