//! What a driver's answer to a call means, and when it is called again.

use super::{CREATE_ATTEMPTS_MAX, Call, Effect, Failure, FailureKind, Seen, State};
use super::{fail, gone, observe};
use crate::model::SandboxState;

pub(super) fn created(state: &mut State, result: Result<Seen, Failure>) -> Vec<Effect> {
    match result {
        Ok(seen) => {
            state.call = None;
            state.failures = 0;
            let mut effects = observe(state, seen);
            // The handle came with it.
            effects.push(Effect::Persist);
            effects.extend(overdue_stop(state));
            effects
        }
        Err(failure) if failure.kind == FailureKind::Ambiguous => {
            state.call = Some(Call::Settle);
            state.message = failure.message;
            vec![Effect::Settle]
        }
        Err(failure) => call_failed(state, failure, Effect::Create),
    }
}

pub(super) fn settled(state: &mut State, result: Result<Option<Seen>, Failure>) -> Vec<Effect> {
    match result {
        Ok(Some(seen)) => {
            state.call = None;
            state.failures = 0;
            let mut effects = observe(state, seen);
            effects.push(Effect::Persist);
            effects.extend(overdue_stop(state));
            effects
        }
        // Known to have existed, and certainly not there now.
        Ok(None) if state.boots > 0 => {
            state.call = None;
            gone(state)
        }
        Ok(None) if state.failures < CREATE_ATTEMPTS_MAX => {
            state.failures += 1;
            state.call = Some(Call::Create);
            vec![Effect::Create]
        }
        Ok(None) => {
            state.call = None;
            let message = format!("the driver did not create it: {}", state.message);
            fail(state, "CREATE_FAILED", message)
        }
        // Cannot tell now: ask again, until the ready timer decides.
        Err(failure) => {
            state.message = failure.message;
            vec![state.backoff()]
        }
    }
}

/// A driver that answers and yet does not say "stopped" is asked again.
pub(super) fn stopped(state: &mut State, seen: Seen) -> Vec<Effect> {
    state.call = None;
    let mut effects = observe(state, seen);
    if state.phase == SandboxState::Stopping {
        state.call = Some(Call::Stop);
        effects.push(state.backoff());
    } else {
        state.failures = 0;
    }
    effects
}

/// It was to be stopped while it was still being made.
fn overdue_stop(state: &mut State) -> Option<Effect> {
    let due = state.phase == SandboxState::Stopping && state.call.is_none();
    due.then(|| {
        state.call = Some(Call::Stop);
        Effect::Stop
    })
}

/// A create, start or stop came back with an error.
pub(super) fn call_failed(state: &mut State, failure: Failure, again: Effect) -> Vec<Effect> {
    if failure.kind == FailureKind::Permanent {
        state.call = None;
        if state.phase == SandboxState::Failed {
            return vec![];
        }
        return fail(state, &failure.reason, failure.message);
    }
    // Idempotent calls: the same one again is the way to find out.
    debug_assert!(matches!(
        again,
        Effect::Create | Effect::Start | Effect::Stop
    ));
    state.message = failure.message;
    vec![state.backoff()]
}

pub(super) fn retry(state: &mut State) -> Vec<Effect> {
    match state.call {
        Some(Call::Create) => vec![Effect::Create],
        Some(Call::Settle) => vec![Effect::Settle],
        Some(Call::Start) => vec![Effect::Start],
        Some(Call::Stop) => vec![Effect::Stop],
        Some(Call::Delete) | None => vec![],
    }
}
