//! Brings what drivers say together with what the gateway knows.
//!
//! ```text
//!  Connected ──► recover: the handles go back, each answer goes to its sandbox's slot
//!  Observed, Deleted ──► slot
//!  Synced ──► inventory ── complete, same incarnation ──► not listed and not found: gone
//!                                                    └──► listed and not ours: an orphan, deleted
//! ```
//!
//! Nothing is taken for gone because it was not seen: only a complete inventory of the same
//! incarnation counts, and even then the driver is asked for that one sandbox again.

use std::collections::HashSet;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::driver::{Driver, DriverEvent, Inventory, RecoverItem, RecoverOutcome, Registry};
use crate::model::{DriverName, OperationId, SandboxId, SandboxState};
use crate::sandbox::{Sandbox, Sandboxes};

/// Handles go back in portions, so that one message stays small.
const RECOVER_ITEMS_MAX: usize = 100;

/// Serves the drivers' events until they end.
pub(crate) async fn run(
    mut events: mpsc::Receiver<DriverEvent>,
    drivers: Registry,
    sandboxes: Sandboxes,
    cancel: CancellationToken,
) {
    // One recovery or inventory of a driver is a child: a slow driver delays no other.
    let mut children = JoinSet::new();
    loop {
        let event = tokio::select! {
            () = cancel.cancelled() => return,
            Some(ended) = children.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "a reconciliation ended badly");
                }
                continue;
            }
            event = events.recv() => match event {
                Some(event) => event,
                None => return,
            },
        };
        match event {
            DriverEvent::Observed {
                driver,
                observation,
            } => {
                if let Some(sandbox) = ours(&sandboxes, &driver, &observation.sandbox_id) {
                    let incarnation = incarnation_of(&drivers, &driver);
                    sandbox.observed(&incarnation, observation, None);
                }
            }
            DriverEvent::Deleted { driver, sandbox_id } => {
                if let Some(sandbox) = ours(&sandboxes, &driver, &sandbox_id) {
                    sandbox.gone();
                }
            }
            DriverEvent::Connected {
                driver,
                incarnation,
            } => {
                if let Some(driver) = drivers.get(&driver) {
                    let known = sandboxes.of_driver(driver.name());
                    children.spawn(recover(driver, incarnation, known));
                }
            }
            DriverEvent::Synced {
                driver,
                incarnation,
            } => {
                if let Some(driver) = drivers.get(&driver) {
                    children.spawn(take_inventory(driver, incarnation, sandboxes.clone()));
                }
            }
            DriverEvent::Disconnected { driver, message } => {
                info!(driver.name = %driver, message, "driver disconnected; its sandboxes go on");
            }
        }
    }
}

fn incarnation_of(drivers: &Registry, name: &DriverName) -> String {
    drivers
        .get(name)
        .map(|driver| driver.view().incarnation.clone())
        .unwrap_or_default()
}

/// A driver's word counts for its own sandboxes only.
fn ours(sandboxes: &Sandboxes, driver: &DriverName, id: &SandboxId) -> Option<Sandbox> {
    let sandbox = sandboxes.get(id)?;
    if sandbox.view().facts.driver == *driver {
        return Some(sandbox);
    }
    warn!(sandbox.id = %id, driver.name = %driver, "a driver spoke of another driver's sandbox");
    None
}

/// Gives the handles back. A create or start that is under way settles itself.
async fn recover(driver: Driver, incarnation: String, known: Vec<Sandbox>) {
    let items: Vec<RecoverItem> = known
        .iter()
        .map(|sandbox| sandbox.view())
        .filter(|view| view.facts.handle.is_some() && view.facts.state != SandboxState::Deleted)
        .map(|view| RecoverItem {
            sandbox_id: view.facts.id.clone(),
            handle: view.facts.handle.clone(),
            callback_directory: view.callback_directory.clone(),
        })
        .collect();
    for portion in items.chunks(RECOVER_ITEMS_MAX) {
        let answers = match driver.recover(portion.to_vec()).await {
            Ok(answers) => answers,
            Err(error) => {
                // The next connection asks again; nothing is concluded from silence.
                warn!(driver.name = %driver.name(), %error, "sandboxes were not recovered");
                return;
            }
        };
        for answer in answers {
            let found = known.iter().find(|s| *s.id() == answer.sandbox_id);
            match (found, answer.outcome, answer.observation) {
                (Some(sandbox), RecoverOutcome::Recovered, Some(observation)) => {
                    sandbox.observed(&incarnation, observation, answer.handle);
                }
                (Some(sandbox), RecoverOutcome::Gone, observation) => {
                    if let Some(last) = observation {
                        sandbox.observed(&incarnation, last, None);
                    }
                    sandbox.gone();
                }
                (Some(sandbox), _, _) => {
                    let message = answer.message;
                    info!(sandbox.id = %sandbox.id(), message, "the driver cannot tell yet");
                }
                (None, _, _) => {}
            }
        }
    }
}

async fn take_inventory(driver: Driver, incarnation: String, sandboxes: Sandboxes) {
    let before = sandboxes.of_driver(driver.name());
    let inventory = match driver.list().await {
        Ok(inventory) => inventory,
        Err(error) => {
            warn!(driver.name = %driver.name(), %error, "no inventory");
            return;
        }
    };
    if !inventory.complete || inventory.incarnation != incarnation {
        info!(
            driver.name = %driver.name(),
            complete = inventory.complete,
            "the inventory does not say what is gone"
        );
        return;
    }
    let listed: HashSet<&SandboxId> = inventory
        .observations
        .iter()
        .map(|observation| &observation.sandbox_id)
        .collect();
    for sandbox in before.iter().filter(|s| !listed.contains(s.id())) {
        confirm_gone(&driver, sandbox).await;
    }
    delete_orphans(&driver, &inventory, &sandboxes).await;
}

async fn confirm_gone(driver: &Driver, sandbox: &Sandbox) {
    let facts = &sandbox.view().facts;
    // Without a handle a create is under way, which settles itself.
    if facts.handle.is_none() || facts.state == SandboxState::Deleted {
        return;
    }
    match driver.get(sandbox.id()).await {
        Ok(None) => sandbox.gone(),
        Ok(Some(_)) => {}
        Err(error) => {
            info!(sandbox.id = %sandbox.id(), %error, "cannot tell whether it is gone");
        }
    }
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
