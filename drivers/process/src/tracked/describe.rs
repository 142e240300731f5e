//! From what was observed to the contract's words: state, termination, counters. Pure.

use cofferdam_driver_sdk::capabilities::termination;
use cofferdam_driver_sdk::proto::{
    Condition, ConditionStatus, ConditionType, Sandbox, SandboxState, Termination,
    TerminationReason,
};

use crate::launch::Observation;
use crate::sandbox::record::{ExitCause, ExitRecord};
use crate::store::Stored;

/// What was seen at one time.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) observation: Observation,
    /// Somebody is making it, so that "half-made" is no failure.
    pub(super) being_made: bool,
    pub(super) last_exit: Option<ExitRecord>,
    /// What was taken away from it, and when that was seen.
    pub(super) disruption: Option<(String, u64)>,
    /// As the kernel counts them; `None` is not measured.
    pub(super) oom_kills: Option<u64>,
    pub(super) now_unix_ms: u64,
}

/// What has to be remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    boots: u64,
    start_time_unix_ms: u64,
    platform_id: String,
    /// The count while the present boot ran.
    oom_kills_running: u64,
    /// How the boot of this number ended: said once, never taken back.
    ended: Option<(u64, Termination)>,
}

pub(super) fn describe(stored: &Stored, facts: &Facts, memory: &mut Memory) -> Sandbox {
    if let Observation::Running(run) = facts.observation {
        memory.boots = run.generation;
        memory.start_time_unix_ms = run.started_at_unix_ms;
        memory.platform_id = run.init.pid.to_string();
        memory.oom_kills_running = facts.oom_kills.unwrap_or_default();
        memory.ended = None;
    }
    let exits = facts.last_exit.map_or(0, |exit| exit.generation);
    memory.boots = memory.boots.max(exits).max(1);
    // The shim that is about to go may be there for a moment yet.
    let is_over = facts
        .last_exit
        .is_some_and(|exit| matches!(exit.cause, ExitCause::Deadline | ExitCause::Terminated));
    let (state, ended) = match facts.observation {
        Observation::Running(_) => (SandboxState::Running, None),
        Observation::HalfMade if facts.being_made => (SandboxState::Creating, None),
        Observation::Stopped if !is_over => (SandboxState::Stopped, Some(ended(facts, memory))),
        _ => (SandboxState::FailedState, Some(ended(facts, memory))),
    };
    Sandbox {
        sandbox_id: stored.sandbox_id.clone(),
        state: state.into(),
        termination: ended,
        conditions: conditions(state, facts, memory),
        oom_kill_count: facts.oom_kills,
        boots: memory.boots,
        create_time_unix_ms: stored.create_time_unix_ms,
        start_time_unix_ms: memory.start_time_unix_ms,
        platform_id: memory.platform_id.clone(),
        stream: "mount".to_owned(),
        weaknesses: stored.weaknesses.clone(),
        ..Sandbox::default()
    }
}

fn conditions(state: SandboxState, facts: &Facts, memory: &Memory) -> Vec<Condition> {
    let status = match state {
        SandboxState::Running => ConditionStatus::True,
        SandboxState::Creating => ConditionStatus::InProgress,
        _ => ConditionStatus::False,
    };
    let mut conditions = vec![Condition {
        r#type: ConditionType::SupervisorStarted.into(),
        status: status.into(),
        change_time_unix_ms: memory.start_time_unix_ms,
        ..Condition::default()
    }];
    conditions.extend(facts.disruption.as_ref().map(|(message, since)| Condition {
        r#type: ConditionType::Disrupted.into(),
        status: ConditionStatus::True.into(),
        message: message.clone(),
        change_time_unix_ms: *since,
        ..Condition::default()
    }));
    conditions
}

/// How this boot ended; the same at every look.
fn ended(facts: &Facts, memory: &mut Memory) -> Termination {
    if let Some((boots, ended)) = &memory.ended
        && *boots == memory.boots
    {
        return ended.clone();
    }
    let ended = why(facts, memory);
    memory.ended = Some((memory.boots, ended.clone()));
    ended
}

fn why(facts: &Facts, memory: &Memory) -> Termination {
    use TerminationReason as Reason;

    let now = facts.now_unix_ms;
    match (facts.observation, facts.last_exit) {
        (Observation::HalfMade, _) => termination(
            Reason::SupervisorStartFailed,
            "the making of the sandbox was interrupted",
            now,
        ),
        (Observation::Lost, _) => termination(
            Reason::PlatformLost,
            "the sandbox's shim is gone without a record: the host was restarted, or somebody \
             killed it",
            now,
        ),
        (_, Some(exit)) => exited(&exit, facts.oom_kills.unwrap_or_default(), memory),
        (_, None) => termination(Reason::PlatformLost, "nobody saw how it ended", now),
    }
}

fn exited(exit: &ExitRecord, oom_kills: u64, memory: &Memory) -> Termination {
    use TerminationReason as Reason;

    let at = exit.at_unix_ms;
    let killed = exit.signal == Some(libc::SIGKILL);
    match (exit.cause, exit.code, exit.signal) {
        (ExitCause::Stopped, ..) => termination(Reason::StoppedByRequest, "stopped by request", at),
        (ExitCause::Deadline, ..) => {
            termination(Reason::Deadline, "the sandbox's expire time has passed", at)
        }
        (ExitCause::Terminated, ..) => termination(
            Reason::PlatformLost,
            "the sandbox's shim was told to end: the host is shutting down, or somebody ended it",
            at,
        ),
        (ExitCause::Own, ..) if killed && oom_kills > memory.oom_kills_running => termination(
            Reason::OomKilled,
            "the supervisor was killed for want of memory",
            at,
        ),
        (_, Some(code), _) => Termination {
            exit_code: code,
            ..termination(
                Reason::Exited,
                format!("the supervisor ended with code {code}"),
                at,
            )
        },
        (_, None, signal) => Termination {
            signal: signal.map_or(0, i32::unsigned_abs),
            ..termination(
                Reason::Signaled,
                match signal {
                    Some(signal) => format!("the supervisor was killed by signal {signal}"),
                    None => "the supervisor was killed".to_owned(),
                },
                at,
            )
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::record::{ProcessId, RECORD_VERSION, RunRecord};

    fn stored() -> Stored {
        Stored {
            version: Stored::VERSION,
            sandbox_id: "sbx-1".to_owned(),
            gateway_id: "gw".to_owned(),
            spec_digest: String::new(),
            create_time_unix_ms: 1,
            weaknesses: Vec::new(),
            uid: 1000,
            gid: 1000,
            expire_time_unix_ms: 9,
            callback: None,
        }
    }

    fn running(generation: u64) -> Observation {
        Observation::Running(RunRecord {
            version: RECORD_VERSION,
            generation,
            init: ProcessId {
                pid: 42,
                start_time: 7,
            },
            started_at_unix_ms: 5,
        })
    }

    fn facts(observation: Observation) -> Facts {
        Facts {
            observation,
            being_made: false,
            last_exit: None,
            disruption: None,
            oom_kills: None,
            now_unix_ms: 100,
        }
    }

    fn exit(cause: ExitCause, code: Option<i32>, signal: Option<i32>) -> ExitRecord {
        ExitRecord {
            version: RECORD_VERSION,
            generation: 1,
            pid: 42,
            cause,
            code,
            signal,
            at_unix_ms: 50,
        }
    }

    fn after(observation: Observation, exit: ExitRecord, oom_kills: u64) -> String {
        let mut memory = Memory::default();
        describe(&stored(), &facts(running(1)), &mut memory);
        let facts = Facts {
            last_exit: Some(exit),
            oom_kills: Some(oom_kills),
            ..facts(observation)
        };
        let sandbox = describe(&stored(), &facts, &mut memory);
        let reason = sandbox.termination.as_ref().unwrap().reason();
        format!("{} {}", sandbox.state().as_str_name(), reason.as_str_name())
    }

    #[test]
    fn every_end_has_its_reason() {
        use Observation::{Ended, Lost, Stopped};

        let kill = Some(libc::SIGKILL);
        let own_kill = exit(ExitCause::Own, None, kill);
        let own_exit = exit(ExitCause::Own, Some(3), None);
        assert_eq!(after(Stopped, own_exit, 0), "STOPPED EXITED");
        assert_eq!(after(Stopped, own_kill, 0), "STOPPED SIGNALED");
        assert_eq!(after(Stopped, own_kill, 1), "STOPPED OOM_KILLED");
        let asked = exit(ExitCause::Stopped, Some(0), None);
        assert_eq!(after(Stopped, asked, 0), "STOPPED STOPPED_BY_REQUEST");
        let forced = exit(ExitCause::Stopped, None, kill);
        assert_eq!(after(Stopped, forced, 0), "STOPPED STOPPED_BY_REQUEST");
        let deadline = exit(ExitCause::Deadline, None, kill);
        assert_eq!(after(Ended, deadline, 0), "FAILED_STATE DEADLINE");
        let ended = exit(ExitCause::Terminated, None, kill);
        assert_eq!(after(Ended, ended, 0), "FAILED_STATE PLATFORM_LOST");
        assert_eq!(after(Lost, own_exit, 0), "FAILED_STATE PLATFORM_LOST");
    }

    #[test]
    fn a_shim_that_is_about_to_go_makes_no_other_state() {
        let deadline = exit(ExitCause::Deadline, None, Some(libc::SIGKILL));
        let state = after(Observation::Stopped, deadline, 0);
        assert_eq!(state, "FAILED_STATE DEADLINE");
    }

    #[test]
    fn half_made_is_creating_while_somebody_makes_it() {
        let mut memory = Memory::default();
        let making = Facts {
            being_made: true,
            ..facts(Observation::HalfMade)
        };
        let sandbox = describe(&stored(), &making, &mut memory);
        assert_eq!(sandbox.state(), SandboxState::Creating);
        let sandbox = describe(&stored(), &facts(Observation::HalfMade), &mut memory);
        assert_eq!(sandbox.state(), SandboxState::FailedState);
    }

    #[test]
    fn a_reason_is_not_taken_back_and_a_new_boot_begins_anew() {
        let mut memory = Memory::default();
        describe(&stored(), &facts(running(1)), &mut memory);
        let stopped = Facts {
            last_exit: Some(exit(ExitCause::Own, None, Some(libc::SIGKILL))),
            oom_kills: Some(1),
            ..facts(Observation::Stopped)
        };
        let first = describe(&stored(), &stopped, &mut memory);
        assert_eq!(describe(&stored(), &stopped, &mut memory), first);
        let again = describe(&stored(), &facts(running(2)), &mut memory);
        assert_eq!((again.boots, again.termination), (2, None));
    }
}
