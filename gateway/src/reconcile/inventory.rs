//! What there is on a driver's platform, against what ought to be there.

use std::collections::HashSet;
use std::time::Duration;

use tracing::{info, warn};

use super::{RETRY_MAX, RETRY_MIN, is_expected, is_in_time, ours, some, tell_lost, was_seen};
use crate::driver::{Driver, Inventory, Subject};
use crate::model::{OperationId, SandboxId};
use crate::sandbox::{Sandbox, Sandboxes};

/// Changes are told by the watch. A driver that has lost one is found out after so long.
const INTERVAL: Duration = Duration::from_secs(300);

/// What an inventory says.
enum Word {
    /// All of it can be relied on.
    Whole,
    /// Part of it: ask again.
    Partial,
    /// It is of another incarnation, whose own inventory follows.
    Foreign,
}

/// Takes the inventory, again when it was not whole, and now and then.
pub(super) async fn run(driver: Driver, incarnation: String, sandboxes: Sandboxes) {
    let mut pause = RETRY_MIN;
    loop {
        match take(&driver, &incarnation, &sandboxes).await {
            Word::Whole => {
                driver.no_notice(Subject::Inventory);
                pause = RETRY_MIN;
                tokio::time::sleep(INTERVAL).await;
            }
            Word::Partial => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            Word::Foreign => return,
        }
    }
}

async fn take(driver: &Driver, incarnation: &str, sandboxes: &Sandboxes) -> Word {
    let before = sandboxes.of_driver(driver.name());
    let inventory = match driver.list().await {
        Ok(inventory) => inventory,
        Err(error) => {
            // The view says so, too.
            warn!(driver.name = %driver.name(), %error, "no inventory");
            return Word::Partial;
        }
    };
    if inventory.incarnation != incarnation {
        info!(driver.name = %driver.name(), "an inventory of another incarnation");
        return Word::Foreign;
    }
    for observation in &inventory.observations {
        if let Some(sandbox) = ours(sandboxes, driver.name(), &observation.sandbox_id) {
            sandbox.observed(incarnation, observation.clone(), None);
        }
    }
    if !inventory.complete {
        let detail = "its list of sandboxes is not complete: what is not on it may be there";
        let fix = "see the driver's log for why it cannot ask its platform in full";
        driver.notice(Subject::Inventory, false, detail, fix);
        return Word::Partial;
    }
    let whole = look_for_missing(driver, &before, &inventory).await;
    delete_orphans(driver, &inventory, sandboxes).await;
    whole
}

/// What is not listed is asked for by name before it is given up.
async fn look_for_missing(driver: &Driver, before: &[Sandbox], inventory: &Inventory) -> Word {
    let listed: HashSet<&SandboxId> = inventory
        .observations
        .iter()
        .map(|observation| &observation.sandbox_id)
        .collect();
    let mut left_out = Vec::new();
    let mut lost = Vec::new();
    let mut word = Word::Whole;
    for sandbox in before.iter().filter(|s| !listed.contains(s.id())) {
        if !is_expected(sandbox) || !was_seen(sandbox) {
            continue;
        }
        match driver.get(sandbox.id()).await {
            Ok(None) => {
                if is_in_time(sandbox) {
                    lost.push(sandbox.id());
                }
                sandbox.gone(None);
            }
            Ok(Some(_)) => left_out.push(sandbox.id()),
            Err(error) => {
                info!(sandbox.id = %sandbox.id(), %error, "cannot tell whether it is gone");
                word = Word::Partial;
            }
        }
    }
    tell_lost(driver, &lost);
    if !left_out.is_empty() {
        let detail = format!(
            "its list of sandboxes says that it is complete, and leaves out {}, which it knows",
            some(&left_out)
        );
        let fix = "nothing is deleted because of it; install a version of the driver that passes \
                   the conformance suite";
        driver.notice(Subject::Inventory, false, &detail, fix);
        word = Word::Partial;
    }
    word
}

/// What carries this gateway's id and is in nobody's record was left by a delete that the driver
/// did not hear of.
async fn delete_orphans(driver: &Driver, inventory: &Inventory, sandboxes: &Sandboxes) {
    for observation in &inventory.observations {
        let id = &observation.sandbox_id;
        // Looked up now: records are written before anything is created.
        if sandboxes.get(id).is_some() {
            continue;
        }
        warn!(sandbox.id = %id, driver.name = %driver.name(), "deleting an orphan");
        if let Err(error) = driver.delete(id, &OperationId::generate()).await {
            warn!(sandbox.id = %id, %error, "the orphan is still there");
        }
    }
}
