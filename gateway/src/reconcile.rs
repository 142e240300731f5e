//! Brings what drivers say together with what the gateway knows.
//!
//! ```text
//!  Connected ──► recovery: the handles go back, each answer goes to its sandbox's slot
//!  Observed, Deleted ──► slot
//!  Synced ──► inventory ── complete, same incarnation ──► not listed and not found: gone
//!                                                    └──► listed and not ours: an orphan, deleted
//! ```
//!
//! Nothing is taken for gone because it was not seen: only a complete inventory of the same
//! incarnation counts, and even then the driver is asked for that one sandbox again. What cannot be
//! told now is asked again, until it can or the connection ends.

mod inventory;
mod recovery;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::driver::{Driver, DriverEvent, Registry, Subject};
use crate::model::{DriverName, SandboxId, SandboxState};
use crate::sandbox::{Sandbox, Sandboxes};

/// Until a driver that could not tell is asked again; doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Serves the drivers' events until they end.
pub(crate) async fn run(
    events: mpsc::Receiver<DriverEvent>,
    drivers: Registry,
    sandboxes: Sandboxes,
    cancel: CancellationToken,
) {
    let mut reconciler = Reconciler {
        drivers,
        sandboxes,
        links: HashMap::new(),
        children: JoinSet::new(),
    };
    // The children end with it.
    cancel.run_until_cancelled(reconciler.serve(events)).await;
}

struct Reconciler {
    drivers: Registry,
    sandboxes: Sandboxes,
    links: HashMap<DriverName, Link>,
    /// One recovery and one inventory of each driver: a slow driver delays no other.
    children: JoinSet<()>,
}

/// A driver's present connection.
struct Link {
    /// As of its `Connected` event: what it tells is of this one, whatever its view says by now.
    incarnation: String,
    recovery: Option<AbortHandle>,
    inventory: Option<AbortHandle>,
}

impl Drop for Link {
    /// What was asked on a connection is of no interest once there is another.
    fn drop(&mut self) {
        for child in [&self.recovery, &self.inventory].into_iter().flatten() {
            child.abort();
        }
    }
}

impl Reconciler {
    async fn serve(&mut self, mut events: mpsc::Receiver<DriverEvent>) {
        loop {
            tokio::select! {
                Some(ended) = self.children.join_next() => {
                    if let Err(error) = ended
                        && !error.is_cancelled()
                    {
                        warn!(%error, "a reconciliation ended badly");
                    }
                }
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
            }
        }
    }

    fn take(&mut self, event: DriverEvent) {
        match event {
            DriverEvent::Observed {
                driver,
                observation,
            } => {
                if let Some(sandbox) = ours(&self.sandboxes, &driver, &observation.sandbox_id)
                    && let Some(link) = self.links.get(&driver)
                {
                    sandbox.told(&link.incarnation, observation);
                }
            }
            DriverEvent::Deleted {
                driver,
                sandbox_id,
                revision,
            } => {
                if let Some(sandbox) = ours(&self.sandboxes, &driver, &sandbox_id) {
                    sandbox.gone(Some(revision));
                }
            }
            DriverEvent::Connected {
                driver,
                incarnation,
            } => self.connected(&driver, incarnation),
            DriverEvent::Synced {
                driver,
                incarnation,
            } => self.synced(&driver, incarnation),
            DriverEvent::Disconnected { driver, message } => {
                info!(driver.name = %driver, message, "driver disconnected; its sandboxes go on");
                self.links.remove(&driver);
            }
        }
    }

    fn connected(&mut self, name: &DriverName, incarnation: String) {
        let Some(driver) = self.drivers.get(name) else {
            return;
        };
        let known = self.sandboxes.of_driver(name);
        let recovery = recovery::run(driver, incarnation.clone(), known);
        let link = Link {
            incarnation,
            recovery: Some(self.children.spawn(recovery)),
            inventory: None,
        };
        self.links.insert(name.clone(), link);
    }

    fn synced(&mut self, name: &DriverName, incarnation: String) {
        let Some(driver) = self.drivers.get(name) else {
            return;
        };
        let inventory = inventory::run(driver, incarnation, self.sandboxes.clone());
        let inventory = self.children.spawn(inventory);
        let earlier = match self.links.get_mut(name) {
            Some(link) => link.inventory.replace(inventory),
            // Its connection has ended; the next one is synced again.
            None => Some(inventory),
        };
        if let Some(earlier) = earlier {
            earlier.abort();
        }
    }
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

/// The driver has seen it. Before that a create is under way, which settles itself.
fn was_seen(sandbox: &Sandbox) -> bool {
    let view = sandbox.view();
    view.facts.handle.is_some() || view.facts.observed.is_some()
}

/// Nobody wants it gone, and nothing is known that has ended it.
fn is_expected(sandbox: &Sandbox) -> bool {
    !matches!(
        sandbox.view().facts.state,
        SandboxState::Failed | SandboxState::Deleting | SandboxState::Deleted
    )
}

/// Its driver removes it when its time is over, without a word.
fn is_in_time(sandbox: &Sandbox) -> bool {
    !sandbox.view().facts.spec.expire_time.remaining().is_zero()
}

/// The driver says that these are gone, and nobody has asked it to remove them. That is believed, and
/// is worth a word.
fn tell_lost(driver: &Driver, lost: &[&SandboxId]) {
    if lost.is_empty() {
        return;
    }
    let detail = format!(
        "it does not know {} any more, which nobody has removed here",
        some(lost)
    );
    let fix = "what was in them is lost: see the driver's log for why, and whether its state or its \
               platform was reset; `cofferdam rm` removes their records";
    driver.notice_once(Subject::Lost, &detail, fix);
}

/// Some ids, for a sentence.
fn some(ids: &[&SandboxId]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = ids.iter().take(SHOWN).map(|id| id.as_str()).collect();
    match ids.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}
