//! When is a sandbox ready? One pure function over what the driver sees and how the session is.
//!
//! `READY = the driver has seen it running ∧ its supervisor's session is up and configured`.
//! Terminal states of the driver win over everything. A driver's snapshot that lags behind cannot
//! demote a live session; a dead session demotes at once.

use crate::model::ObservedState;

/// The supervisor's session, as far as readiness cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum SessionState {
    Down,
    /// Authenticated, but not told yet what its processes inherit.
    Up,
    Configured,
}

/// What the two sides together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// Not (or not any more): and this is what is missing.
    Waiting(&'static str),
    /// The driver says that it does not run.
    Stopped,
    /// The driver says that it is broken for good.
    Failed,
    /// The driver is removing it.
    Leaving,
}

/// Combines both views. `was_ready`: it has been ready in this boot.
pub(super) fn compose(
    seen: Option<ObservedState>,
    session: SessionState,
    was_ready: bool,
) -> Readiness {
    use ObservedState as Seen;
    match (seen, session) {
        (Some(Seen::Failed), _) => Readiness::Failed,
        (Some(Seen::Stopped), _) => Readiness::Stopped,
        (Some(Seen::Deleting), _) => Readiness::Leaving,
        (Some(Seen::Running), SessionState::Configured) => Readiness::Ready,
        // A snapshot from before: the live session knows better, but only once it has been ready.
        (None | Some(Seen::Creating | Seen::Unknown), SessionState::Configured) if was_ready => {
            Readiness::Ready
        }
        (Some(Seen::Paused), _) => Readiness::Waiting("the sandbox is paused"),
        (_, SessionState::Up) => Readiness::Waiting("the supervisor is being configured"),
        (Some(Seen::Running), SessionState::Down) => {
            Readiness::Waiting("the supervisor's session is not up")
        }
        (None, _) => Readiness::Waiting("the driver has not answered"),
        (Some(Seen::Creating | Seen::Unknown), _) => {
            Readiness::Waiting("the driver is still creating it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ObservedState as Seen;

    const SEEN: [Option<Seen>; 8] = [
        None,
        Some(Seen::Unknown),
        Some(Seen::Creating),
        Some(Seen::Running),
        Some(Seen::Stopped),
        Some(Seen::Failed),
        Some(Seen::Deleting),
        Some(Seen::Paused),
    ];
    const SESSIONS: [SessionState; 3] = [
        SessionState::Down,
        SessionState::Up,
        SessionState::Configured,
    ];

    /// One letter for each pair, over all pairs: Ready, Waiting, Stopped, Failed, Leaving.
    fn table(was_ready: bool) -> Vec<String> {
        let letter = |seen, session| match compose(seen, session, was_ready) {
            Readiness::Ready => 'R',
            Readiness::Waiting(_) => 'w',
            Readiness::Stopped => 'S',
            Readiness::Failed => 'F',
            Readiness::Leaving => 'L',
        };
        SESSIONS
            .map(|session| SEEN.map(|seen| letter(seen, session)).iter().collect())
            .to_vec()
    }

    #[test]
    fn every_pair_before_the_first_ready() {
        // Columns: none unknown creating running stopped failed deleting paused.
        assert_eq!(table(false), ["wwwwSFLw", "wwwwSFLw", "wwwRSFLw"]);
    }

    #[test]
    fn every_pair_once_it_was_ready() {
        assert_eq!(table(true), ["wwwwSFLw", "wwwwSFLw", "RRRRSFLw"]);
    }
}
