//! Sandboxes as this driver follows them: found by their labels, looked at on the engine, described
//! in the contract's words.

mod describe;
mod heard;
mod oom;
mod tracked;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use describe::Outage;
pub(crate) use tracked::{Tracked, now_unix_ms};

/// How long an engine may be at work with what a driver asked that was killed.
const LATE: Duration = crate::client::SLOW;

/// All that this driver knows of. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sandboxes(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    known: HashMap<String, Arc<Tracked>>,
    /// Gateway and sandbox, and when. A container of one that comes after it is nobody's.
    deleted: HashMap<(String, String), Instant>,
}

impl Sandboxes {
    pub(crate) fn get(&self, sandbox_id: &str) -> Option<Arc<Tracked>> {
        self.lock().known.get(sandbox_id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Tracked>> {
        self.lock().known.values().cloned().collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().known.len() as u64
    }

    /// Adds it, unless its id is taken; the one that is there then.
    pub(crate) fn add(&self, tracked: Tracked) -> (Arc<Tracked>, bool) {
        let mut all = self.lock();
        let id = tracked.record().sandbox_id;
        if let Some(known) = all.known.get(&id) {
            return (Arc::clone(known), false);
        }
        let tracked = Arc::new(tracked);
        all.known.insert(id, Arc::clone(&tracked));
        (tracked, true)
    }

    /// Forgets exactly this one, and not another of its id.
    pub(crate) fn remove(&self, tracked: &Arc<Tracked>) {
        let mut all = self.lock();
        let id = tracked.record().sandbox_id;
        let known = all.known.get(&id);
        if known.is_some_and(|known| Arc::ptr_eq(known, tracked)) {
            all.known.remove(&id);
        }
    }

    /// Its gateway wants nothing to be left of it, whether or not there is something yet.
    pub(crate) fn note_delete(&self, gateway_id: &str, sandbox_id: &str) {
        let (now, id) = (
            Instant::now(),
            (gateway_id.to_owned(), sandbox_id.to_owned()),
        );
        let mut all = self.lock();
        all.deleted.retain(|_, at| now.duration_since(*at) < LATE);
        all.deleted.insert(id, now);
    }

    /// Its gateway wants one of this id again.
    pub(crate) fn forget_delete(&self, gateway_id: &str, sandbox_id: &str) {
        let id = (gateway_id.to_owned(), sandbox_id.to_owned());
        self.lock().deleted.remove(&id);
    }

    /// Not known, and deleted not long ago.
    pub(crate) fn is_deleted(&self, gateway_id: &str, sandbox_id: &str) -> bool {
        let id = (gateway_id.to_owned(), sandbox_id.to_owned());
        let all = self.lock();
        !all.known.contains_key(sandbox_id) && all.deleted.contains_key(&id)
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Record;

    fn found() -> Tracked {
        let record = Record {
            gateway_id: "gw".to_owned(),
            sandbox_id: "sbx-1".to_owned(),
            ..Record::default()
        };
        Tracked::found(record, "c1")
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_its_delete_is_told_from_what_is_wanted_again() {
        let sandboxes = Sandboxes::default();
        assert!(!sandboxes.is_deleted("gw", "sbx-1"));
        sandboxes.note_delete("gw", "sbx-1");
        assert!(sandboxes.is_deleted("gw", "sbx-1"));
        assert!(!sandboxes.is_deleted("other", "sbx-1"));
        sandboxes.forget_delete("gw", "sbx-1");
        assert!(!sandboxes.is_deleted("gw", "sbx-1"));
        sandboxes.note_delete("gw", "sbx-1");
        let (known, _) = sandboxes.add(found());
        assert!(!sandboxes.is_deleted("gw", "sbx-1"));
        sandboxes.remove(&known);
        tokio::time::advance(LATE).await;
        sandboxes.note_delete("gw", "sbx-2");
        assert!(!sandboxes.is_deleted("gw", "sbx-1"));
    }
}
