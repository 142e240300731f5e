//! What people and clocks want of a sandbox: to stop, to start again, to go.

use super::{Call, Effect, State, Wanted};
use crate::model::{ObservedState, SandboxState};

pub(super) fn stop(state: &mut State) -> Vec<Effect> {
    match state.phase {
        SandboxState::Provisioning | SandboxState::Ready | SandboxState::Queued => {
            state.wanted = Wanted::Stopped;
            state.enter(SandboxState::Stopping, "", "");
            if matches!(state.call, Some(Call::Create | Call::Settle)) {
                // Only once it is known to be there can it be stopped.
                return vec![Effect::Persist, Effect::DisarmReadyTimer];
            }
            state.call = Some(Call::Stop);
            vec![Effect::Persist, Effect::DisarmReadyTimer, Effect::Stop]
        }
        // It stays failed, and what still runs in it is ended.
        SandboxState::Failed if state.seen == Some(ObservedState::Running) => {
            state.call = Some(Call::Stop);
            vec![Effect::Stop]
        }
        _ => vec![],
    }
}

pub(super) fn start(state: &mut State) -> Vec<Effect> {
    if state.phase != SandboxState::Stopped {
        return vec![];
    }
    state.wanted = Wanted::Running;
    state.was_ready = false;
    state.failures = 0;
    state.seen = None;
    state.enter(SandboxState::Provisioning, "", "starting again");
    state.call = Some(Call::Start);
    vec![Effect::Persist, Effect::ArmReadyTimer, Effect::Start]
}

pub(super) fn leave(state: &mut State, reason: &'static str, message: String) -> Vec<Effect> {
    state.wanted = Wanted::Gone;
    state.enter(SandboxState::Deleting, reason, message);
    state.call = Some(Call::Delete);
    state.failures = 0;
    vec![Effect::Persist, Effect::DisarmReadyTimer, Effect::Delete]
}
