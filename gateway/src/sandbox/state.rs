//! The life of a sandbox as a pure function: `step(state, event) → effects`.
//!
//! ```text
//!            Begin                    ready                Stop
//!  (stored) ───────► PROVISIONING ──────────► READY ──────────────► STOPPING ──► STOPPED
//!                     ▲   │  ▲                  │ session lost          Start       │
//!                     │   │  └──────────────────┘                                   │
//!                     │   └─ create refused, never ready, gone ──► FAILED           │
//!                     └─────────────────────────────────────────────────────────────┘
//!   every state ── Delete, expired, idle ──► DELETING ── driver: nothing left ──► DELETED
//! ```
//!
//! One whose session is lost although its driver says that it runs is waited for: what is in it may
//! live, and its supervisor may come back. It is PROVISIONING, for `SESSION_DOWN` and, once the time
//! for that is over, `SESSION_LOST`.
//!
//! It knows nothing of tasks, stores, drivers or clocks; `task.rs` performs the effects and feeds
//! their results back as events. At most one driver call of a sandbox is under way: a later one
//! replaces it, and what a replaced one answers counts for nothing.

mod answers;
#[cfg(test)]
mod tests;
mod waiting;
#[cfg(test)]
mod walk;
mod wanted;

use std::time::Duration;

use self::answers::{call_failed, created, retry, settled, stopped};
pub(super) use self::waiting::SESSION_LOST;
use self::waiting::{SESSION_DOWN, ready_timeout};
use self::wanted::{leave, start, stop};
use super::readiness::{Readiness, SessionState, compose};
use crate::model::{ObservedState, SandboxState, TerminationReason};

/// What the sandbox's owner wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Running,
    Stopped,
    Gone,
}

/// The driver call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    /// Looking whether an unanswered create took effect.
    Settle,
    Start,
    Stop,
    Delete,
}

/// All that decides what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) phase: SandboxState,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) wanted: Wanted,
    pub(super) call: Option<Call>,
    pub(super) seen: Option<ObservedState>,
    /// The boot that `seen` and `was_ready` belong to.
    pub(super) boots: u64,
    pub(super) session: SessionState,
    pub(super) was_ready: bool,
    /// Driver calls in a row that did not come to an end.
    pub(super) failures: u32,
}

/// An observation, cut down to what decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: ObservedState,
    pub(super) boots: u64,
    pub(super) ended: Option<(TerminationReason, String)>,
}

/// How a driver call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Stable name for callers: "DRIVER_UNHEALTHY", "IMAGE_NOT_FOUND" ….
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) kind: FailureKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Trying again cannot help.
    Permanent,
    /// It did nothing; trying again may help.
    Transient,
    /// It may have taken effect.
    Ambiguous,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A new sandbox whose record is stored.
    Begin,
    /// A sandbox of an earlier life of the gateway.
    Resume,
    Created(Result<Seen, Failure>),
    /// After an ambiguous create: is it there?
    Settled(Result<Option<Seen>, Failure>),
    Started(Result<Seen, Failure>),
    StopEnded(Result<Seen, Failure>),
    DeleteEnded(Result<(), Failure>),
    Observed(Seen),
    /// It was looked for, and could not be seen. Says why.
    Unseen(String),
    /// The driver says for certain that it is not there any more.
    Gone,
    SessionUp,
    /// Says why.
    SessionDown(String),
    /// What later processes inherit is bound, or can never be.
    Configured(Result<(), String>),
    Stop,
    Start,
    Delete {
        reason: &'static str,
        message: String,
    },
    /// Neither ready nor failed for too long. Says who the driver is, for people, and whether it can
    /// be reached.
    ReadyTimeout {
        driver: String,
        is_away: bool,
    },
    /// Time to try the last call again.
    Retry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Write the record. A wish's is stored before anything that follows in the list; what was only
    /// observed is queued, before whatever is stored later.
    Persist,
    Create,
    Settle,
    Start,
    Stop,
    /// Aborts a call that is under way.
    Delete,
    Configure,
    /// The record and everything kept for it can go.
    Remove,
    RetryAfter(Duration),
    /// Start counting towards `ReadyTimeout` anew.
    ArmReadyTimer,
    DisarmReadyTimer,
}

/// How often a create whose answer was lost, and that left nothing, is tried again.
const CREATE_ATTEMPTS_MAX: u32 = 3;
const RETRY_MS_MIN: u64 = 100;
const RETRY_MS_MAX: u64 = 10_000;

impl State {
    /// A sandbox as the store knows it.
    pub(super) fn new(phase: SandboxState, reason: String, message: String) -> Self {
        let wanted = match phase {
            SandboxState::Stopping | SandboxState::Stopped | SandboxState::Failed => {
                Wanted::Stopped
            }
            SandboxState::Deleting | SandboxState::Deleted => Wanted::Gone,
            _ => Wanted::Running,
        };
        Self {
            phase,
            reason,
            message,
            wanted,
            call: None,
            seen: None,
            boots: 0,
            session: SessionState::Down,
            was_ready: false,
            failures: 0,
        }
    }

    fn enter(&mut self, phase: SandboxState, reason: &str, message: impl Into<String>) {
        self.phase = phase;
        reason.clone_into(&mut self.reason);
        self.message = message.into();
    }

    fn backoff(&mut self) -> Effect {
        self.failures = self.failures.saturating_add(1);
        let factor = 1_u64 << self.failures.min(10);
        Effect::RetryAfter(Duration::from_millis(
            (RETRY_MS_MIN * factor / 2).min(RETRY_MS_MAX),
        ))
    }
}

/// The next state and what is to be done about it.
pub(super) fn step(state: &mut State, event: Event) -> Vec<Effect> {
    // Once it is to go, only the end of the delete matters.
    if state.wanted == Wanted::Gone {
        return step_leaving(state, event);
    }
    match event {
        Event::Begin => {
            state.call = Some(Call::Create);
            vec![Effect::ArmReadyTimer, Effect::Create]
        }
        Event::Resume => resume(state),
        Event::Created(result) => created(state, result),
        Event::Settled(result) => settled(state, result),
        Event::Started(Ok(seen)) => {
            state.call = None;
            state.failures = 0;
            observe(state, seen)
        }
        Event::Started(Err(failure)) => call_failed(state, failure, Effect::Start),
        Event::StopEnded(Ok(seen)) => stopped(state, seen),
        Event::StopEnded(Err(failure)) => call_failed(state, failure, Effect::Stop),
        Event::DeleteEnded(_) => vec![],
        Event::Observed(seen) => observe(state, seen),
        Event::Unseen(why) => {
            if state.phase == SandboxState::Provisioning && !state.lacks_session() {
                state.message = why;
            }
            vec![]
        }
        Event::Gone => gone(state),
        Event::SessionUp => {
            // It may take the place of one that was configured.
            state.session = SessionState::Up;
            let mut effects = evaluate(state);
            effects.push(Effect::Configure);
            effects
        }
        Event::SessionDown(why) => {
            state.session = SessionState::Down;
            let effects = evaluate(state);
            if state.phase == SandboxState::Provisioning && state.lacks_session() {
                state.message = format!("its supervisor's session ended: {why}");
            }
            effects
        }
        Event::Configured(Ok(())) if state.session == SessionState::Up => {
            state.session = SessionState::Configured;
            evaluate(state)
        }
        Event::Configured(Err(message)) if state.session == SessionState::Up => {
            fail(state, "CONFIGURE_FAILED", message)
        }
        // Of a session that is gone.
        Event::Configured(_) => vec![],
        Event::Stop => stop(state),
        Event::Start => start(state),
        Event::Delete { reason, message } => leave(state, reason, message),
        Event::ReadyTimeout { driver, is_away } => ready_timeout(state, &driver, is_away),
        Event::Retry => retry(state),
    }
}

fn step_leaving(state: &mut State, event: Event) -> Vec<Effect> {
    match event {
        Event::Resume | Event::Retry if state.phase != SandboxState::Deleted => {
            state.call = Some(Call::Delete);
            vec![Effect::Delete]
        }
        Event::DeleteEnded(Ok(())) => {
            state.call = None;
            state.phase = SandboxState::Deleted;
            vec![Effect::DisarmReadyTimer, Effect::Remove]
        }
        Event::DeleteEnded(Err(failure)) => {
            state.call = None;
            state.message = failure.message;
            vec![state.backoff()]
        }
        Event::SessionDown(_) => {
            state.session = SessionState::Down;
            vec![]
        }
        _ => vec![],
    }
}

fn resume(state: &mut State) -> Vec<Effect> {
    match state.phase {
        // The create may or may not have been sent.
        SandboxState::Queued | SandboxState::Provisioning => {
            state.was_ready = state.lacks_session();
            state.call = Some(Call::Settle);
            vec![Effect::ArmReadyTimer, Effect::Settle]
        }
        SandboxState::Ready => {
            // It has been ready in this boot: a live session is word enough while the driver is
            // away.
            state.was_ready = true;
            state.enter(
                SandboxState::Provisioning,
                SESSION_DOWN,
                "waiting for the supervisor after a restart of the gateway",
            );
            state.call = Some(Call::Settle);
            vec![Effect::ArmReadyTimer, Effect::Settle]
        }
        SandboxState::Stopping => {
            state.call = Some(Call::Stop);
            vec![Effect::Stop]
        }
        _ => vec![],
    }
}

fn observe(state: &mut State, seen: Seen) -> Vec<Effect> {
    if seen.boots < state.boots {
        return vec![]; // Of an earlier boot.
    }
    if seen.boots > state.boots {
        state.boots = seen.boots;
        state.was_ready = false;
        if state.lacks_session() {
            // Of the boot before: this one's has never been up.
            state.reason.clear();
        }
    }
    let ended = seen.ended.clone();
    // A start is under way: "stopped" is old news until it is answered.
    if seen.state == ObservedState::Stopped && state.call == Some(Call::Start) {
        return vec![];
    }
    state.seen = Some(seen.state);
    let mut effects = evaluate(state);
    if let (SandboxState::Stopped | SandboxState::Failed, Some((reason, message))) =
        (state.phase, ended)
    {
        let by_request = state.wanted == Wanted::Stopped && reason == TerminationReason::Unknown;
        if !by_request && state.reason != reason.name() && !effects.is_empty() {
            reason.name().clone_into(&mut state.reason);
            state.message = message;
            effects.push(Effect::Persist);
        }
    }
    effects
}

/// Brings the phase in line with what both sides say.
fn evaluate(state: &mut State) -> Vec<Effect> {
    if state.phase == SandboxState::Failed {
        return vec![];
    }
    let readiness = compose(state.seen, state.session, state.was_ready);
    match (readiness, state.phase) {
        (Readiness::Failed, _) => fail(state, "PLATFORM_ERROR", "the driver reports a failure"),
        (Readiness::Stopped, SandboxState::Stopped) => vec![],
        (Readiness::Stopped, _) => {
            state.enter(SandboxState::Stopped, "STOPPED_BY_REQUEST", "");
            state.wanted = Wanted::Stopped;
            state.call = None;
            state.was_ready = false;
            vec![Effect::DisarmReadyTimer, Effect::Persist]
        }
        // Being stopped: only the end of it changes the phase.
        (_, SandboxState::Stopping | SandboxState::Stopped) => vec![],
        (Readiness::Ready, SandboxState::Ready) => vec![],
        (Readiness::Ready, _) => {
            state.was_ready = true;
            state.enter(SandboxState::Ready, "", "");
            vec![Effect::DisarmReadyTimer, Effect::Persist]
        }
        (Readiness::Waiting(what), SandboxState::Ready) => {
            let reason = match state.session {
                SessionState::Configured => "",
                SessionState::Up | SessionState::Down => SESSION_DOWN,
            };
            state.enter(SandboxState::Provisioning, reason, what);
            vec![Effect::ArmReadyTimer, Effect::Persist]
        }
        (Readiness::Leaving, SandboxState::Ready) => {
            state.enter(SandboxState::Provisioning, "", "the driver is removing it");
            vec![Effect::ArmReadyTimer, Effect::Persist]
        }
        (Readiness::Waiting(what), _) => {
            if !state.lacks_session() {
                what.clone_into(&mut state.message);
            }
            vec![]
        }
        (Readiness::Leaving, _) => vec![],
    }
}

fn gone(state: &mut State) -> Vec<Effect> {
    // A create or settle that is under way will say so itself.
    if state.phase == SandboxState::Failed
        || matches!(state.call, Some(Call::Create | Call::Settle))
    {
        return vec![];
    }
    fail(
        state,
        "PLATFORM_LOST",
        "the driver says that it does not exist any more",
    )
}

fn fail(state: &mut State, reason: &str, message: impl Into<String>) -> Vec<Effect> {
    state.enter(SandboxState::Failed, reason, message);
    state.wanted = Wanted::Stopped;
    state.call = None;
    state.was_ready = false;
    vec![Effect::DisarmReadyTimer, Effect::Persist]
}
