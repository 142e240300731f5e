//! The ordered log of observations, from which `WatchSandboxes` is served.
//!
//! A driver calls [`Observations::record`] with what it sees, as often as it likes, from any task.
//! The log keeps the last state of each sandbox, gives every change a revision and a place in one
//! order, and never goes back: a state that is older than the last one is dropped.
//!
//! ```text
//!   record ──► states (last of each) ──► snapshot ─┐
//!          ╲                                       ├──► watcher: snapshots, synced, changes …
//!           ─► ring of changes (bounded) ──────────┘
//! ```
//!
//! Watchers hold a place in the ring and no buffer of their own. One that is too slow finds its
//! place overwritten and ends with `OUT_OF_RANGE`; the gateway then asks anew.

mod log;
mod order;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::context::Incarnation;
use crate::proto::Sandbox;
use log::Log;

pub(crate) use stream::watch as watch_stream;

/// How many changes the ring keeps: some minutes of a busy host, a few megabytes.
pub const CHANGES_MAX: usize = 4096;

/// What a driver has seen, in order. Cheap to clone; all clones are one log.
#[derive(Debug, Clone)]
pub struct Observations(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    incarnation: Incarnation,
    log: Mutex<Log>,
    /// The number of the last change; wakes the watchers.
    head: watch::Sender<u64>,
}

impl Observations {
    /// An empty log.
    #[must_use]
    pub fn new(incarnation: Incarnation) -> Self {
        Self::with_capacity(incarnation, CHANGES_MAX)
    }

    /// An empty log that keeps `changes_max` changes.
    #[must_use]
    pub fn with_capacity(incarnation: Incarnation, changes_max: usize) -> Self {
        Self(Arc::new(Shared {
            incarnation,
            log: Mutex::new(Log::new(changes_max)),
            head: watch::Sender::new(0),
        }))
    }

    /// Takes an observation of a sandbox of `gateway_id`. Returns the newest state with its
    /// revision, which is another than the given one if that came too late; `None` if the sandbox
    /// has been removed. The same state again changes nothing.
    ///
    /// The order of states is: boots, then creating before running (or paused) before stopped;
    /// failed and deleting are final, in this order.
    pub fn record(&self, gateway_id: &str, sandbox: Sandbox) -> Option<Sandbox> {
        let mut log = self.lock();
        let newest = log.record(gateway_id, sandbox);
        self.publish(&log);
        newest
    }

    /// The sandbox is gone from the platform. Its id is never reported again.
    pub fn remove(&self, gateway_id: &str, sandbox_id: &str) {
        let mut log = self.lock();
        log.remove(gateway_id, sandbox_id);
        self.publish(&log);
    }

    /// A create of this id has been asked for: should it have been removed before, it is reported
    /// again from now on. The server says so when a create begins; a driver, when in the course of
    /// one it has removed what was left of an earlier one.
    pub fn expect(&self, gateway_id: &str, sandbox_id: &str) {
        self.lock().expect(gateway_id, sandbox_id);
    }

    /// The newest state.
    #[must_use]
    pub fn current(&self, gateway_id: &str, sandbox_id: &str) -> Option<Sandbox> {
        self.lock().current(gateway_id, sandbox_id)
    }

    fn publish(&self, log: &Log) {
        self.0.head.send_if_modified(|head| {
            let changed = *head != log.head();
            *head = log.head();
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A panic inside leaves at worst one change unnumbered; the log stays usable.
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cursor(&self, position: u64) -> String {
        format!("{}.{position}", self.0.incarnation)
    }

    /// The position a cursor stands for, if it is of this incarnation.
    fn position(&self, cursor: &str) -> Option<u64> {
        let (incarnation, position) = cursor.rsplit_once('.')?;
        if incarnation != self.0.incarnation.as_str() {
            return None;
        }
        position.parse().ok()
    }
}
