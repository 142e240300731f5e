//! States and changes, numbered. No waiting and no streams here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::order;
use crate::proto::{Sandbox, SandboxDeleted};

/// One change, with whose sandbox it is about.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) gateway_id: Arc<str>,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Changed(Arc<Sandbox>),
    Deleted(SandboxDeleted),
}

/// A place in the ring has been overwritten, or was never there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfRange;

type Key = (Arc<str>, String);

#[derive(Debug)]
pub(super) struct Log {
    states: HashMap<Key, Arc<Sandbox>>,
    /// Removed sandboxes, until the change that says so has left the ring. Later observations can
    /// only come from an operation that was pending then, and none is pending for that long.
    removed: HashMap<Key, Removed>,
    /// Changes `head - ring.len() + 1 ..= head`.
    ring: VecDeque<Change>,
    changes_max: usize,
    head: u64,
}

/// The end of a sandbox.
#[derive(Debug, Clone, Copy)]
struct Removed {
    /// Of the change that says so.
    number: u64,
    revision: u64,
    /// It is being made anew.
    expected: bool,
}

impl Log {
    pub(super) fn new(changes_max: usize) -> Self {
        assert!(changes_max > 0, "a log without places keeps nothing");
        Self {
            states: HashMap::new(),
            removed: HashMap::new(),
            ring: VecDeque::new(),
            changes_max,
            head: 0,
        }
    }

    /// The number of the last change; 0 before the first.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn record(&mut self, gateway_id: &str, mut sandbox: Sandbox) -> Option<Sandbox> {
        let key = key(gateway_id, &sandbox.sandbox_id);
        let removed = self.removed.get(&key);
        if removed.is_some_and(|removed| !removed.expected) {
            return None;
        }
        // Revisions grow for as long as this incarnation remembers.
        sandbox.revision = 1 + removed.map_or(0, |removed| removed.revision);
        if let Some(last) = self.states.get(&key) {
            if !order::may_follow(last, &sandbox) || !order::differs(last, &sandbox) {
                return Some(Sandbox::clone(last));
            }
            sandbox.revision = last.revision + 1;
        }
        let state = Arc::new(sandbox.clone());
        self.push(&key.0, What::Changed(Arc::clone(&state)));
        self.states.insert(key, state);
        Some(sandbox)
    }

    pub(super) fn remove(&mut self, gateway_id: &str, sandbox_id: &str) {
        let key = key(gateway_id, sandbox_id);
        let Some(last) = self.states.remove(&key) else {
            // What was to be made anew was not.
            if let Some(removed) = self.removed.get_mut(&key) {
                removed.expected = false;
            }
            return;
        };
        let deleted = SandboxDeleted {
            sandbox_id: sandbox_id.to_owned(),
            revision: last.revision + 1,
        };
        let revision = deleted.revision;
        self.push(&key.0, What::Deleted(deleted));
        let removed = Removed {
            number: self.head,
            revision,
            expected: false,
        };
        self.removed.insert(key, removed);
    }

    pub(super) fn expect(&mut self, gateway_id: &str, sandbox_id: &str) {
        if let Some(removed) = self.removed.get_mut(&key(gateway_id, sandbox_id)) {
            removed.expected = true;
        }
    }

    pub(super) fn current(&self, gateway_id: &str, sandbox_id: &str) -> Option<Sandbox> {
        let state = self.states.get(&key(gateway_id, sandbox_id))?;
        Some(Sandbox::clone(state))
    }

    /// All states of a gateway, sorted by id, and the change that they include.
    pub(super) fn snapshot(&self, gateway_id: &str) -> (Vec<Arc<Sandbox>>, u64) {
        let mut states: Vec<_> = self
            .states
            .iter()
            .filter(|((owner, _), _)| &**owner == gateway_id)
            .map(|(_, state)| Arc::clone(state))
            .collect();
        states.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
        (states, self.head)
    }

    /// Up to `max` changes after `position`, each with its number. Without any: nothing new.
    pub(super) fn after(
        &self,
        position: u64,
        max: usize,
    ) -> Result<Vec<(u64, Change)>, OutOfRange> {
        let oldest = self.head - self.ring.len() as u64;
        if position < oldest || position > self.head {
            return Err(OutOfRange);
        }
        let skip = usize::try_from(position - oldest).map_err(|_| OutOfRange)?;
        let changes = self.ring.iter().skip(skip).take(max).cloned();
        Ok((position + 1..).zip(changes).collect())
    }

    fn push(&mut self, gateway_id: &Arc<str>, what: What) {
        self.head += 1;
        self.ring.push_back(Change {
            gateway_id: Arc::clone(gateway_id),
            what,
        });
        if self.ring.len() > self.changes_max {
            self.ring.pop_front();
            let oldest = self.head - self.ring.len() as u64;
            if self.removed.len() > self.changes_max {
                self.removed.retain(|_, removed| removed.number > oldest);
            }
        }
    }
}

fn key(gateway_id: &str, sandbox_id: &str) -> Key {
    (gateway_id.into(), sandbox_id.to_owned())
}
