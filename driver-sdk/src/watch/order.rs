//! Which of two states of one sandbox is the later one.

use crate::proto::{Sandbox, SandboxState};

/// States with a smaller rank cannot follow. Equal ranks can: progress within a state, and
/// running and paused in turn.
type Rank = (u8, u64, u8);

fn rank(sandbox: &Sandbox) -> Rank {
    let (finality, phase) = match sandbox.state() {
        SandboxState::Unspecified => (0, 0),
        SandboxState::Creating => (0, 1),
        SandboxState::Running | SandboxState::Paused => (0, 2),
        SandboxState::Stopped => (0, 3),
        SandboxState::FailedState => (1, 0),
        SandboxState::Deleting => (2, 0),
    };
    // What is final is so whatever boot it was observed in.
    let boots = if finality == 0 { sandbox.boots } else { 0 };
    (finality, boots, phase)
}

/// Whether `next` can follow `last`.
pub(super) fn may_follow(last: &Sandbox, next: &Sandbox) -> bool {
    rank(next) >= rank(last)
        // Counters of kills only grow; a smaller one was read earlier.
        && (next.oom_kill_count >= last.oom_kill_count || next.oom_kill_count.is_none())
}

/// Whether `next` says something new, revisions apart.
pub(super) fn differs(last: &Sandbox, next: &Sandbox) -> bool {
    let mut next = next.clone();
    next.revision = last.revision;
    *last != next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: SandboxState, boots: u64) -> Sandbox {
        Sandbox {
            state: state.into(),
            boots,
            ..Sandbox::default()
        }
    }

    #[test]
    fn states_never_go_back() {
        use SandboxState::{Creating, Deleting, FailedState, Paused, Running, Stopped};
        let life = [
            at(Creating, 1),
            at(Running, 1),
            at(Stopped, 1),
            at(Creating, 2),
            at(Running, 2),
            at(FailedState, 2),
            at(Deleting, 2),
        ];
        for (index, last) in life.iter().enumerate() {
            for next in &life[index..] {
                assert!(may_follow(last, next), "{last:?} then {next:?}");
            }
            for earlier in &life[..index] {
                assert!(!may_follow(last, earlier), "{last:?} then {earlier:?}");
            }
        }
        assert!(may_follow(&at(Running, 1), &at(Paused, 1)));
        assert!(may_follow(&at(Paused, 1), &at(Running, 1)));
    }
}
