//! Giving the handles back after a driver was reached, until it has answered for each.

use tracing::{info, warn};

use super::{RETRY_MAX, RETRY_MIN, is_expected, is_in_time, some, tell_lost, was_seen};
use crate::driver::{Driver, RecoverItem, RecoverOutcome, Recovered, Subject};
use crate::model::{SandboxId, SandboxState};
use crate::sandbox::Sandbox;

/// Handles go back in portions, so that one message stays small.
const ITEMS_MAX: usize = 100;

const FIX: &str = "nothing is deleted meanwhile; see the driver's log for what it cannot read, and \
                   remove those sandboxes if they are not worth it";

/// A create or start that is under way settles itself.
pub(super) async fn run(driver: Driver, incarnation: String, known: Vec<Sandbox>) {
    let mut open = known;
    let mut pause = RETRY_MIN;
    loop {
        open.retain(|sandbox| {
            was_seen(sandbox) && sandbox.view().facts.state != SandboxState::Deleted
        });
        open = ask(&driver, &incarnation, open).await;
        tell(&driver, &open);
        if open.is_empty() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

fn tell(driver: &Driver, open: &[Sandbox]) {
    if open.is_empty() {
        return driver.no_notice(Subject::Recovery);
    }
    let ids: Vec<&SandboxId> = open.iter().map(Sandbox::id).collect();
    let detail = format!("it cannot tell what became of {}", some(&ids));
    driver.notice(Subject::Recovery, true, &detail, FIX);
}

/// Those that the driver could not answer for.
async fn ask(driver: &Driver, incarnation: &str, asked: Vec<Sandbox>) -> Vec<Sandbox> {
    let mut open = Vec::new();
    for portion in asked.chunks(ITEMS_MAX) {
        let items = portion.iter().map(item).collect();
        match driver.recover(items).await {
            Ok(answers) => {
                let answered = portion.iter().zip(&answers);
                let lost = answered.filter(|(sandbox, answer)| is_lost(sandbox, answer));
                let lost: Vec<_> = lost.map(|(sandbox, _)| sandbox.id()).collect();
                tell_lost(driver, &lost);
                let answered = portion.iter().zip(&answers);
                let silent = answered.filter(|(sandbox, answer)| {
                    debug_assert_eq!(*sandbox.id(), answer.sandbox_id);
                    !settle(incarnation, sandbox, answer)
                });
                open.extend(silent.map(|(sandbox, _)| sandbox.clone()));
            }
            Err(error) => {
                // Nothing is concluded from silence.
                warn!(driver.name = %driver.name(), %error, "sandboxes were not recovered");
                open.extend_from_slice(portion);
            }
        }
    }
    open
}

fn item(sandbox: &Sandbox) -> RecoverItem {
    let view = sandbox.view();
    RecoverItem {
        sandbox_id: view.facts.id.clone(),
        handle: view.facts.handle.clone(),
        callback_directory: view.callback_directory.clone(),
    }
}

/// It is gone without a word about its end, and was to be there.
fn is_lost(sandbox: &Sandbox, answer: &Recovered) -> bool {
    answer.outcome == RecoverOutcome::Gone
        && answer.observation.is_none()
        && is_expected(sandbox)
        && is_in_time(sandbox)
}

/// False: the driver cannot tell.
fn settle(incarnation: &str, sandbox: &Sandbox, answer: &Recovered) -> bool {
    match (answer.outcome, &answer.observation) {
        (RecoverOutcome::Recovered, Some(observation)) => {
            let handle = answer.handle.clone();
            sandbox.observed(incarnation, observation.clone(), handle);
        }
        (RecoverOutcome::Gone, observation) => {
            if let Some(last) = observation {
                sandbox.observed(incarnation, last.clone(), None);
            }
            sandbox.gone(None);
        }
        _ => {
            let message = &answer.message;
            info!(sandbox.id = %sandbox.id(), message, "the driver cannot tell yet");
            return false;
        }
    }
    true
}
