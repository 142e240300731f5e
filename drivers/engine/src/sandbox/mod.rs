//! Sandboxes as this driver follows them: found by their labels, looked at on the engine, described
//! in the contract's words.

mod describe;
mod oom;
mod tracked;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use describe::Outage;
pub(crate) use tracked::{Tracked, now_unix_ms};

/// All that this driver knows of. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sandboxes(Arc<Mutex<HashMap<String, Arc<Tracked>>>>);

impl Sandboxes {
    pub(crate) fn get(&self, sandbox_id: &str) -> Option<Arc<Tracked>> {
        self.lock().get(sandbox_id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Tracked>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().len() as u64
    }

    /// Adds it, unless its id is taken; the one that is there then.
    pub(crate) fn add(&self, tracked: Tracked) -> (Arc<Tracked>, bool) {
        let mut all = self.lock();
        let id = tracked.record().sandbox_id;
        if let Some(known) = all.get(&id) {
            return (Arc::clone(known), false);
        }
        let tracked = Arc::new(tracked);
        all.insert(id, Arc::clone(&tracked));
        (tracked, true)
    }

    /// Forgets exactly this one, and not another of its id.
    pub(crate) fn remove(&self, tracked: &Arc<Tracked>) {
        let mut all = self.lock();
        let id = tracked.record().sandbox_id;
        if all
            .get(&id)
            .is_some_and(|known| Arc::ptr_eq(known, tracked))
        {
            all.remove(&id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Tracked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
