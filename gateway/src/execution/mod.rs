//! Executions: a command in a sandbox, its output, and how it ended.
//!
//! ```text
//!  QUEUED ──place───► CLAIMING ──sandbox ready──► RUNNING ──exit──► SUCCEEDED | FAILED
//!     │                   │                          │
//!     └─ cancel ──────────┴── sandbox failed ────────┴─► CANCELED | TIMED_OUT | FAILED | LOST
//! ```
//!
//! One runner task owns an execution; callers hold an [`Execution`] and follow its output with a
//! [`Follow`]. The output goes to the log first, and only then is the supervisor told that it may
//! forget it.

mod directory;
mod ending;
mod follow;
mod kill;
mod link;
mod live;
mod oom;
mod places;
mod pump;
mod runner;
mod stdin;
mod storing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

pub use directory::{Executions, ExecutionsOptions, FindError, NewExecution, Place, StartError};
pub use follow::{Follow, FollowError, Item};
pub use live::Chunk;
pub use stdin::StdinProgress;

use crate::model::{ExecutionFacts, ExecutionId};
use ending::Kill;
use live::Live;

/// Control requests that may wait for the runner.
const CONTROL_MAX: usize = 16;
/// Pieces of stdin that may wait for the runner, which itself buffers a bounded amount.
const STDIN_QUEUE_MAX: usize = 4;

#[derive(Debug)]
enum Control {
    Signal(u32),
    Resize { rows: u32, columns: u32 },
    Cancel { grace: Duration },
}

/// What arrives on a caller's stdin.
#[derive(Debug)]
pub enum StdinPiece {
    Data {
        offset: u64,
        data: Bytes,
    },
    /// Its length.
    Eof {
        offset: u64,
    },
}

/// A handle to an execution that has not ended yet (or has just ended).
#[derive(Debug, Clone)]
pub struct Execution {
    id: ExecutionId,
    control: mpsc::Sender<Control>,
    stdin: mpsc::Sender<StdinPiece>,
    /// Unknown while the supervisor has not said what an earlier gateway had sent.
    stdin_progress: watch::Receiver<Option<StdinProgress>>,
    view: watch::Receiver<Arc<ExecutionFacts>>,
    live: Arc<Live>,
}

impl Execution {
    pub fn id(&self) -> &ExecutionId {
        &self.id
    }

    /// As they are now. While it runs, its output is longer than when its state last changed.
    pub fn facts(&self) -> Arc<ExecutionFacts> {
        let facts = self.view.borrow().clone();
        let end = *self.live.end().borrow();
        if facts.state.is_final() || facts.output.bytes == end {
            return facts;
        }
        let mut facts = Arc::unwrap_or_clone(facts);
        facts.output.bytes = end;
        Arc::new(facts)
    }

    pub fn watch(&self) -> watch::Receiver<Arc<ExecutionFacts>> {
        self.view.clone()
    }

    /// Somebody is on its stream, or has to come back to it soon.
    fn is_waited_for(&self) -> bool {
        self.live.primary().borrow().present || !self.facts().detachable
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Arc<ExecutionFacts> {
        let mut view = self.view.clone();
        match view.wait_for(|facts| facts.state.is_final()).await {
            Ok(facts) => facts.clone(),
            // The runner went away with the gateway: this is the last that is known.
            Err(_) => self.facts(),
        }
    }

    /// A signal to the process group. Lost without harm if it has ended.
    pub async fn signal(&self, signal: u32) {
        let _ended = self.control.send(Control::Signal(signal)).await;
    }

    pub async fn resize(&self, rows: u32, columns: u32) {
        let _ended = self.control.send(Control::Resize { rows, columns }).await;
    }

    /// Kills the whole tree: politely, then after the grace for good.
    pub async fn cancel(&self, grace: Duration) {
        let _ended = self.control.send(Control::Cancel { grace }).await;
    }

    /// Waits while the process does not read. False: it has ended, nothing more is wanted.
    pub async fn stdin(&self, piece: StdinPiece) -> bool {
        self.stdin.send(piece).await.is_ok()
    }

    /// How far its stdin has come, once that is known.
    pub fn stdin_progress(&self) -> watch::Receiver<Option<StdinProgress>> {
        self.stdin_progress.clone()
    }
}
