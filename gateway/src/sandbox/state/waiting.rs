//! How long a sandbox that is not ready is waited for.
//!
//! One that was never ready in this boot fails. One that was, and runs as its driver says, is waited
//! for without end: to give it up would give up what is in it.

use super::{Call, Effect, State, fail};
use crate::model::{ObservedState, SandboxState};
use crate::sandbox::readiness::{Readiness, compose};

/// It was ready in this boot, and its supervisor's session has ended.
pub(super) const SESSION_DOWN: &str = "SESSION_DOWN";
/// And has not come back in time.
pub(in crate::sandbox) const SESSION_LOST: &str = "SESSION_LOST";

impl State {
    /// It is said why it is not ready any more, which goes before what is missing now.
    pub(super) fn lacks_session(&self) -> bool {
        [SESSION_DOWN, SESSION_LOST].contains(&self.reason.as_str())
    }
}

pub(super) fn ready_timeout(state: &mut State, driver: &str, is_away: bool) -> Vec<Effect> {
    if state.phase != SandboxState::Provisioning && state.phase != SandboxState::Queued {
        return vec![];
    }
    let waits_for_driver = match state.call {
        Some(Call::Settle) => state.boots > 0,
        Some(Call::Start) => is_away,
        _ => false,
    };
    if waits_for_driver {
        // Silence is no death, and its workspace is there: it is asked for as long as it takes.
        return vec![Effect::ArmReadyTimer];
    }
    if state.was_ready && state.seen == Some(ObservedState::Running) {
        // Whether it lives is its driver's word. To give it up would give up what is in it.
        let is_news = state.reason != SESSION_LOST;
        SESSION_LOST.clone_into(&mut state.reason);
        let persist = is_news.then_some(Effect::Persist);
        return persist.into_iter().chain([Effect::ArmReadyTimer]).collect();
    }
    let what = compose(state.seen, state.session, state.was_ready);
    let missing = match what {
        Readiness::Waiting(what) => what,
        _ => "it did not become ready",
    };
    let detail = if state.message.is_empty() || state.message == missing {
        String::new()
    } else {
        format!("; last: {}", state.message)
    };
    let reason = if state.seen == Some(ObservedState::Running) {
        "SESSION_TIMEOUT"
    } else {
        "CREATE_TIMEOUT"
    };
    fail(
        state,
        reason,
        format!("not ready in time: {missing}{detail} ({driver})"),
    )
}
