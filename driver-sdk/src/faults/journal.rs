//! What the driver was asked, in order, and what became of it: so that a test can say "no sandbox
//! was created twice" and "nothing was deleted" from the driver's side.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// More calls than any test makes; beyond it the oldest are forgotten, and counted.
const CALLS_MAX: usize = 100_000;

/// All calls since the driver was started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// What the driver says its incarnation is.
    pub incarnation: String,
    /// Connections that were accepted.
    pub connections: u64,
    /// Calls that are not listed any more.
    pub forgotten: u64,
    /// In the order in which they came.
    pub calls: Vec<Seen>,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// As in the contract: `CreateSandbox`.
    pub rpc: String,
    /// What it was about; empty for calls that are about none, or about many.
    pub sandbox: String,
    /// What a rule did to it: `hang`. Absent: no rule.
    pub fault: Option<String>,
    /// Absent while it is under way.
    pub outcome: Option<Outcome>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With this code; a stream: it was opened with it.
    Code(String),
    /// The caller went away, or the connection was cut.
    Dropped,
    /// With something that is no answer.
    Broken,
}

impl Journal {
    /// How often `rpc` was called about `sandbox`; an empty one is any.
    #[must_use]
    pub fn count(&self, rpc: &str, sandbox: &str) -> usize {
        let fits =
            |seen: &&Seen| seen.rpc == rpc && (sandbox.is_empty() || seen.sandbox == sandbox);
        self.calls.iter().filter(fits).count()
    }
}

/// The journal while it is written.
#[derive(Debug, Clone, Default)]
pub(super) struct Book(Arc<Mutex<Journal>>);

impl Book {
    pub(super) fn copy(&self) -> Journal {
        self.lock().clone()
    }

    pub(super) fn connected(&self) {
        self.lock().connections += 1;
    }

    pub(super) fn begin(&self, rpc: &str, sandbox: &str, fault: Option<&str>) -> Entry {
        let mut journal = self.lock();
        if journal.calls.len() == CALLS_MAX {
            journal.calls.drain(..CALLS_MAX / 2);
            journal.forgotten += (CALLS_MAX / 2) as u64;
        }
        let place = journal.forgotten + journal.calls.len() as u64;
        journal.calls.push(Seen {
            rpc: rpc.to_owned(),
            sandbox: sandbox.to_owned(),
            fault: fault.map(str::to_owned),
            outcome: None,
        });
        Entry {
            book: self.clone(),
            place,
        }
    }

    fn end(&self, place: u64, outcome: Outcome) {
        let mut journal = self.lock();
        let index = place.checked_sub(journal.forgotten);
        let index = index.and_then(|index| usize::try_from(index).ok());
        if let Some(seen) = index.and_then(|index| journal.calls.get_mut(index)) {
            seen.outcome.get_or_insert(outcome);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way. Dropped without an end, its caller went away.
#[derive(Debug)]
pub(super) struct Entry {
    book: Book,
    place: u64,
}

impl Entry {
    pub(super) fn end(self, outcome: Outcome) {
        self.book.end(self.place, outcome);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.book.end(self.place, Outcome::Dropped);
    }
}
