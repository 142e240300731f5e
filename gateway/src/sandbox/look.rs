//! Looking for oneself. Drivers tell changes by their watch; a sandbox that is not what it should be
//! is also asked after, in case a change was not told.
//!
//! ```text
//!   waiting (not ready, no call under way) ── 2 s, 4 s, … ──► GetSandbox ──► observed
//!                                                                   │ nothing told 5 s later
//!                                                                   └──► the driver's notices
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::Slot;
use super::calls::{self, CallContext};
use super::task::{Outcome, Task};
use crate::driver::Subject;
use crate::model::{ObservedState, OperationId, SandboxState};

/// News comes within milliseconds; asking a remote platform is not free.
const FIRST: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A change that was seen is told within this, or was lost.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// When the next look is due, and what the last one has shown.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) at: Option<Instant>,
    pause: Duration,
    under_way: bool,
    untold: Option<Untold>,
}

/// A change that was seen before it was told.
#[derive(Debug)]
struct Untold {
    incarnation: String,
    revision: u64,
    state: ObservedState,
    at: Instant,
}

impl Look {
    /// It is waited for from now on.
    pub(super) fn begin(&mut self) {
        self.pause = FIRST;
        self.at = Some(Instant::now() + FIRST);
    }

    pub(super) fn end(&mut self) {
        self.at = None;
    }

    /// When it will be known whether a change is told.
    pub(super) fn untold_at(&self) -> Option<Instant> {
        self.untold.as_ref().map(|untold| untold.at)
    }
}

impl Task {
    /// A look is due.
    pub(super) fn look_now(&mut self) {
        self.look.pause = (self.look.pause * 2).min(PAUSE_MAX);
        self.look.at = Some(Instant::now() + self.look.pause);
        let waits = self.state.phase == SandboxState::Provisioning && self.state.call.is_none();
        if !waits || self.look.under_way {
            return;
        }
        let context = CallContext {
            driver: self.shared.drivers.get(&self.facts.driver),
            driver_name: self.facts.driver.clone(),
            id: self.facts.id.clone(),
            operation: OperationId::generate(),
        };
        self.look.under_way = true;
        self.calls.spawn(calls::look(context));
    }

    /// A look has ended. False: it shows nothing that is not known.
    pub(super) fn looked(&mut self, outcome: &Outcome) -> bool {
        self.look.under_way = false;
        let Some(observation) = &outcome.observation else {
            return true;
        };
        let incarnation = outcome.incarnation.clone().unwrap_or_default();
        if incarnation == self.incarnation && observation.revision <= self.revision {
            return false;
        }
        self.look.untold = Some(Untold {
            incarnation: incarnation.clone(),
            revision: observation.revision,
            state: observation.state,
            at: Instant::now() + TOLD_WITHIN,
        });
        self.incarnation = incarnation;
        true
    }

    /// Time to say whether the watch has told what was seen.
    pub(super) fn judge_untold(&mut self, slot: &Slot) {
        let Some(untold) = self.look.untold.take() else {
            return;
        };
        let was_told = slot.incarnation != untold.incarnation || slot.told >= untold.revision;
        let Some(driver) = self.shared.drivers.get(&self.facts.driver) else {
            return;
        };
        if was_told {
            return;
        }
        let detail = format!(
            "it has not told that {} is {}: this was only seen by asking",
            self.facts.id,
            untold.state.name()
        );
        let fix = "changes come late; install a version of the driver that passes the conformance \
                   suite";
        driver.notice_once(Subject::Untold, &detail, fix);
    }
}
