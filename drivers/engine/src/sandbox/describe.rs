//! From what an engine shows of a container to the contract's words. Pure.
//!
//! ```text
//!   created ─ being made ─► CREATING        exited ─ asked to stop ────► STOPPED, by request
//!           ─ nobody does ► FAILED                 ─ 124, or expired ──► FAILED, deadline
//!   running ──────────────► RUNNING                ─ 125 ──────────────► FAILED, did not start
//!   paused ───────────────► PAUSED                 ─ killed for memory ► STOPPED, oom
//!   removing ─────────────► DELETING               ─ engine was away ──► STOPPED, platform lost
//!   dead ─────────────────► FAILED                 ─ otherwise ────────► STOPPED, exit or signal
//! ```

use cofferdam_driver_sdk::capabilities::termination;
use cofferdam_driver_sdk::proto::{
    Condition, ConditionStatus, ConditionType, Sandbox, SandboxState, Termination,
    TerminationReason,
};

use crate::client::wire::{ContainerJson, unix_ms};
use crate::labels::Record;
use crate::naming::Name;

/// Exit codes of the supervisor; see docs/supervisor.md.
const EXIT_DEADLINE: i64 = 124;
const EXIT_NOT_STARTED: i64 = 125;
/// Beyond it an exit code is a signal's.
const EXIT_SIGNAL: i64 = 128;
const SIGKILL: i64 = 9;

/// Between the clocks of engine and driver.
const CLOCK_SLACK_MS: u64 = 2_000;

/// An engine that stops first closes its socket and then its containers.
const OUTAGE_SLACK_MS: u64 = 2_000;

/// When the engine was last away, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

/// What was seen at one time.
#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    pub(super) container: Option<&'a ContainerJson>,
    /// Somebody is making it, so that half-made is no failure.
    pub(super) being_made: bool,
    /// Why it could not be made.
    pub(super) failed: Option<&'a Termination>,
    /// What is going on while it is made.
    pub(super) progress: Option<&'a Condition>,
    /// What was taken away from it.
    pub(super) disruption: Option<&'a str>,
    pub(super) outage: Option<Outage>,
    pub(super) oom_kills: Option<u64>,
    pub(super) now_unix_ms: u64,
}

pub(super) fn describe(record: &Record, name: &Name, facts: &Facts<'_>) -> Sandbox {
    let (state, ended) = state(record, name, facts);
    let container = facts.container;
    let is_running = container.is_some_and(ContainerJson::is_running);
    let start_time_unix_ms = container.map_or(0, |one| unix_ms(&one.state.started_at));
    Sandbox {
        sandbox_id: record.sandbox_id.clone(),
        state: state.into(),
        termination: ended,
        conditions: conditions(state, start_time_unix_ms, facts),
        oom_kill_count: facts.oom_kills,
        boots: name.boots_begun(is_running),
        create_time_unix_ms: record.create_time_unix_ms,
        start_time_unix_ms,
        platform_id: container.map(|one| one.id.clone()).unwrap_or_default(),
        image_digest: record.image_digest.clone(),
        stream: record.stream.clone(),
        weaknesses: record.weaknesses.clone(),
        ..Sandbox::default()
    }
}

fn state(record: &Record, name: &Name, facts: &Facts<'_>) -> (SandboxState, Option<Termination>) {
    let failed = |ended: Termination| (SandboxState::FailedState, Some(ended));
    if let Some(why) = facts.failed {
        return failed(why.clone());
    }
    let half_made = || match facts.being_made {
        true => (SandboxState::Creating, None),
        false => failed(termination(
            TerminationReason::SupervisorStartFailed,
            "the making of the sandbox was interrupted",
            facts.now_unix_ms,
        )),
    };
    let Some(container) = facts.container else {
        return half_made();
    };
    match container.state.status.as_str() {
        "running" | "restarting" | "stopping" => (SandboxState::Running, None),
        "paused" => (SandboxState::Paused, None),
        "removing" => (SandboxState::Deleting, None),
        "exited" | "stopped" => {
            let ended = ended(record, name, container, facts);
            let is_final = matches!(
                ended.reason(),
                TerminationReason::Deadline | TerminationReason::SupervisorStartFailed
            );
            match is_final {
                true => failed(ended),
                false => (SandboxState::Stopped, Some(ended)),
            }
        }
        "dead" => failed(termination(
            TerminationReason::PlatformError,
            "the engine could not remove all of the container",
            facts.now_unix_ms,
        )),
        // Made ready for its next boot, which has not begun.
        _ if name.is_starting => {
            let ended = ended(record, name, container, facts);
            (SandboxState::Stopped, Some(ended))
        }
        // "created", "configured", "initialized", and what engines may come to say.
        _ => half_made(),
    }
}

fn ended(
    record: &Record,
    name: &Name,
    container: &ContainerJson,
    facts: &Facts<'_>,
) -> Termination {
    use TerminationReason as Reason;

    let state = &container.state;
    let at = match unix_ms(&state.finished_at) {
        0 => facts.now_unix_ms,
        at => at,
    };
    let was_away = facts.outage.is_some_and(|outage| {
        at + OUTAGE_SLACK_MS >= outage.from_ms && at <= outage.to_ms + OUTAGE_SLACK_MS
    });
    let expire = record.expire_time_unix_ms;
    let has_expired = expire > 0 && at >= expire;
    // Its clock and ours may differ; before that it has ended for another's deadline.
    let may_have_expired = expire > 0 && at + CLOCK_SLACK_MS >= expire;
    match state.exit_code {
        EXIT_DEADLINE if may_have_expired => {
            termination(Reason::Deadline, "the sandbox's expire time has passed", at)
        }
        // Its next boot was asked for and has not begun: only what had stopped is started again.
        _ if name.is_stopping || name.is_starting => {
            termination(Reason::StoppedByRequest, "stopped by request", at)
        }
        _ if has_expired => {
            termination(Reason::Deadline, "the sandbox's expire time has passed", at)
        }
        EXIT_NOT_STARTED => termination(
            Reason::SupervisorStartFailed,
            "the supervisor could not start; the console has the reason",
            at,
        ),
        code if state.oom_killed && code == EXIT_SIGNAL + SIGKILL => termination(
            Reason::OomKilled,
            "the supervisor was killed for want of memory",
            at,
        ),
        _ if was_away => termination(
            Reason::PlatformLost,
            "the engine was stopped or restarted, and the container ended with it",
            at,
        ),
        // The supervisor never ends so by itself.
        0 => Termination {
            exit_code: 0,
            ..termination(
                Reason::Exited,
                "somebody outside asked the supervisor to end",
                at,
            )
        },
        code if code > EXIT_SIGNAL && code < EXIT_SIGNAL + 65 => Termination {
            signal: u32::try_from(code - EXIT_SIGNAL).unwrap_or_default(),
            ..termination(
                Reason::Signaled,
                format!("the supervisor was killed by signal {}", code - EXIT_SIGNAL),
                at,
            )
        },
        code => Termination {
            exit_code: i32::try_from(code).unwrap_or(-1),
            ..termination(
                Reason::Exited,
                match state.error.as_str() {
                    "" => format!("the supervisor ended with code {code}"),
                    error => format!("the container ended with code {code}: {error}"),
                },
                at,
            )
        },
    }
}

fn conditions(state: SandboxState, start_time_unix_ms: u64, facts: &Facts<'_>) -> Vec<Condition> {
    let status = match state {
        SandboxState::Running | SandboxState::Paused => ConditionStatus::True,
        SandboxState::Creating => ConditionStatus::InProgress,
        _ => ConditionStatus::False,
    };
    let progress = facts.progress.filter(|_| state == SandboxState::Creating);
    let mut conditions: Vec<Condition> = progress.cloned().into_iter().collect();
    conditions.push(Condition {
        r#type: ConditionType::SupervisorStarted.into(),
        status: status.into(),
        change_time_unix_ms: start_time_unix_ms,
        ..Condition::default()
    });
    conditions.extend(facts.disruption.map(|message| Condition {
        r#type: ConditionType::Disrupted.into(),
        status: ConditionStatus::True.into(),
        message: message.to_owned(),
        ..Condition::default()
    }));
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::wire::StateJson;

    fn record() -> Record {
        Record {
            gateway_id: "gw".to_owned(),
            sandbox_id: "sbx-1".to_owned(),
            expire_time_unix_ms: 50_000,
            ..Record::default()
        }
    }

    fn container(status: &str, exit_code: i64, oom_killed: bool) -> ContainerJson {
        ContainerJson {
            id: "c1".to_owned(),
            state: StateJson {
                status: status.to_owned(),
                exit_code,
                oom_killed,
                finished_at: "1970-01-01T00:00:20Z".to_owned(),
                ..StateJson::default()
            },
            ..ContainerJson::default()
        }
    }

    fn facts(container: Option<&ContainerJson>) -> Facts<'_> {
        Facts {
            container,
            being_made: false,
            failed: None,
            progress: None,
            disruption: None,
            outage: None,
            oom_kills: None,
            now_unix_ms: 30_000,
        }
    }

    fn said(name: &Name, facts: &Facts<'_>) -> String {
        let sandbox = describe(&record(), name, facts);
        let state = sandbox.state().as_str_name();
        match &sandbox.termination {
            Some(ended) => format!("{state} {}", ended.reason().as_str_name()),
            None => state.to_owned(),
        }
    }

    fn after(status: &str, exit_code: i64, oom_killed: bool) -> String {
        let container = container(status, exit_code, oom_killed);
        said(&Name::new("gw", "sbx-1"), &facts(Some(&container)))
    }

    #[test]
    fn every_state_of_an_engine_has_a_word() {
        assert_eq!(after("running", 0, false), "RUNNING");
        assert_eq!(after("paused", 0, false), "PAUSED");
        assert_eq!(after("removing", 0, false), "DELETING");
        assert_eq!(after("dead", 0, false), "FAILED_STATE PLATFORM_ERROR");
        assert_eq!(
            after("created", 0, false),
            "FAILED_STATE SUPERVISOR_START_FAILED"
        );
        let being_made = Facts {
            being_made: true,
            ..facts(None)
        };
        assert_eq!(said(&Name::new("gw", "sbx-1"), &being_made), "CREATING");
    }

    #[test]
    fn every_end_has_its_reason() {
        assert_eq!(after("exited", 0, false), "STOPPED EXITED");
        assert_eq!(after("exited", 3, false), "STOPPED EXITED");
        assert_eq!(after("exited", 137, false), "STOPPED SIGNALED");
        assert_eq!(after("exited", 137, true), "STOPPED OOM_KILLED");
        assert_eq!(after("exited", 143, true), "STOPPED SIGNALED");
        assert_eq!(after("exited", 124, false), "STOPPED EXITED");
        assert_eq!(
            after("exited", 125, false),
            "FAILED_STATE SUPERVISOR_START_FAILED"
        );
    }

    #[test]
    fn a_stop_that_was_asked_for_is_one_whatever_the_code() {
        let name = Name::new("gw", "sbx-1").stopping();
        for code in [0, 137, 143] {
            let container = container("exited", code, false);
            let text = said(&name, &facts(Some(&container)));
            assert_eq!(text, "STOPPED STOPPED_BY_REQUEST");
        }
        let mut late = container("exited", 124, false);
        late.state.finished_at = "1970-01-01T00:00:50Z".to_owned();
        assert_eq!(said(&name, &facts(Some(&late))), "FAILED_STATE DEADLINE");
    }

    #[test]
    fn a_boot_that_has_not_begun_is_not_one_that_has_ended() {
        let name = Name::new("gw", "sbx-1").stopping().next_boot();
        let seen = |status: &str| {
            let container = container(status, 0, false);
            let facts = facts(Some(&container));
            let sandbox = describe(&record(), &name, &facts);
            (said(&name, &facts), sandbox.boots)
        };
        let stopped = "STOPPED STOPPED_BY_REQUEST".to_owned();
        assert_eq!(seen("exited"), (stopped.clone(), 1));
        // What Podman says between the attaching and the start.
        assert_eq!(seen("created"), (stopped, 1));
        assert_eq!(seen("running"), ("RUNNING".to_owned(), 2));
    }

    #[test]
    fn what_ended_while_the_engine_was_away_was_lost() {
        let container = container("exited", 0, false);
        let mut facts = facts(Some(&container));
        let name = Name::new("gw", "sbx-1");
        facts.outage = Some(Outage {
            from_ms: 19_000,
            to_ms: 25_000,
        });
        assert_eq!(said(&name, &facts), "STOPPED PLATFORM_LOST");
        facts.outage = Some(Outage {
            from_ms: 23_000,
            to_ms: 25_000,
        });
        assert_eq!(said(&name, &facts), "STOPPED EXITED");
    }

    #[test]
    fn what_was_killed_after_its_time_met_its_deadline() {
        for (code, at) in [(137, "51"), (124, "49")] {
            let mut late = container("exited", code, false);
            late.state.finished_at = format!("1970-01-01T00:00:{at}Z");
            let text = said(&Name::new("gw", "sbx-1"), &facts(Some(&late)));
            assert_eq!(text, "FAILED_STATE DEADLINE");
        }
    }
}
