//! One sandbox as the driver follows it: what was accepted, what is observed, who may work on it.
//!
//! ```text
//!   look ─► observe the state directory and its processes ─► describe (pure) ─► observation log
//! ```
//!
//! A look and its report are one step under a lock, so that what is reported is in the order in
//! which it was seen.

mod describe;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cofferdam_driver_sdk::Observations;
use cofferdam_driver_sdk::proto::Sandbox;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::launch::{self, Observation, ShimControl};
use crate::store::{Stored, callback_identity};
use describe::{Facts, Memory};

/// A sandbox of this driver.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) state_dir: PathBuf,
    /// Held by whoever makes, starts or destroys it. Unlike the server's own order of operations
    /// it holds work that outlives its call.
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// Wakes the watcher: something was done to the sandbox.
    pub(crate) news: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    stored: Stored,
    memory: Memory,
    /// Somebody else may be making it still: a driver that was killed left a shim on its way.
    half_made_until: Option<Instant>,
    watched: bool,
    gone: bool,
    /// Why the supervisor cannot reach its gateway any more, and since when.
    disruption: Option<(String, u64)>,
}

impl Tracked {
    /// A sandbox that is about to be made, by whoever holds `operation`.
    pub(crate) fn new(state_dir: PathBuf, stored: Stored) -> Self {
        Self {
            state_dir,
            operation: tokio::sync::Mutex::default(),
            news: Notify::new(),
            inner: Mutex::new(Inner {
                stored,
                memory: Memory::default(),
                half_made_until: None,
                watched: false,
                gone: false,
                disruption: None,
            }),
        }
    }

    /// A sandbox that was found; it may still be half-made for `patience`.
    pub(crate) fn adopted(state_dir: PathBuf, stored: Stored, patience: Duration) -> Self {
        let tracked = Self::new(state_dir, stored);
        tracked.lock().half_made_until = Some(Instant::now() + patience);
        tracked
    }

    pub(crate) fn stored(&self) -> Stored {
        self.lock().stored.clone()
    }

    pub(crate) fn add_weaknesses(&self, more: impl IntoIterator<Item = String>) -> Stored {
        let mut inner = self.lock();
        inner.stored.weaknesses.extend(more);
        inner.stored.clone()
    }

    /// The supervisor connects through a descriptor of the directory that it was made with; a
    /// new directory of the same name is out of its reach.
    pub(crate) fn compare_callback(&self, directory: Option<&Path>) {
        let mut inner = self.lock();
        let (Some(directory), Some(known)) = (directory, inner.stored.callback) else {
            return;
        };
        inner.disruption = (callback_identity(directory) != Some(known)).then(|| {
            let message = format!(
                "{} is not the directory that the sandbox was made with: its supervisor cannot \
                 reach the gateway",
                directory.display()
            );
            (message, now_unix_ms())
        });
    }

    pub(crate) fn control(&self) -> ShimControl {
        ShimControl::new(&self.state_dir)
    }

    /// Observes it and reports what was seen; `None` once it has been removed. Blocks briefly.
    pub(crate) fn look(&self, log: &Observations) -> Option<(Sandbox, Observation)> {
        let mut inner = self.lock();
        if inner.gone {
            return None;
        }
        let seen = launch::observe(&self.state_dir);
        let seen = seen.as_ref();
        let observation = seen.map_or(Observation::HalfMade, |seen| seen.observation);
        let being_made = self.operation.try_lock().is_err()
            || inner
                .half_made_until
                .is_some_and(|until| Instant::now() < until);
        let facts = Facts {
            observation,
            being_made,
            disruption: inner.disruption.clone(),
            last_exit: seen.and_then(|seen| seen.last_exit),
            oom_kills: seen.and_then(|seen| seen.cgroup()?.oom_kills()),
            now_unix_ms: now_unix_ms(),
        };
        let Inner { stored, memory, .. } = &mut *inner;
        let sandbox = describe::describe(stored, &facts, memory);
        let newest = log.record(&stored.gateway_id, sandbox.clone());
        Some((newest.unwrap_or(sandbox), observation))
    }

    /// It has been removed: nothing is reported any more.
    pub(crate) fn is_gone(&self) {
        self.lock().gone = true;
        self.news.notify_waiters();
    }

    /// True for the one who is to watch it.
    pub(crate) fn begin_watching(&self) -> bool {
        !std::mem::replace(&mut self.lock().watched, true)
    }

    pub(crate) fn end_watching(&self) {
        self.lock().watched = false;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now, in Unix milliseconds.
pub(crate) fn now_unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
