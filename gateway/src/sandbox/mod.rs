//! Sandboxes: one task owns each, this module finds them.
//!
//! ```text
//!   api ──► Sandboxes ──► Sandbox (handle) ──commands──► task ──► driver
//!                              ▲                          │
//!   reconcile ──► Slot ────────┼──────────────────────────┤
//!                              └──────── SandboxView ◄────┘
//! ```
//!
//! A slot holds only the newest observation, so a slow task can never make a driver's events
//! pile up.

pub mod admission;
mod calls;
mod directory;
mod effects;
mod look;
mod readiness;
mod state;
mod task;
mod wishes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use directory::{CreateError, NewSandbox, Sandboxes, SandboxesOptions};

use crate::callback::{Session, TokenStore};
use crate::driver::Registry;
use crate::model::{Handle, Observation, SandboxFacts, SandboxId, SandboxName, SandboxState};
use crate::state_dir::StateDir;
use crate::store::{Store, StoreError};

/// Requests wait for the task in a queue of this many; a caller beyond it waits in the API.
const COMMANDS_MAX: usize = 16;

/// What everybody may know about a sandbox.
#[derive(Debug, Clone)]
pub struct SandboxView {
    pub facts: SandboxFacts,
    /// Up and configured.
    pub session: Option<Session>,
    /// Of its socket; empty until that is open.
    pub callback_directory: PathBuf,
}

/// The newest word of the driver, from the watch stream or from reconciling.
#[derive(Debug, Clone, Default)]
struct Slot {
    incarnation: String,
    observation: Option<Observation>,
    handle: Option<Handle>,
    /// The driver says for certain that it is not there any more, as of this revision.
    gone: Option<u64>,
    /// The last revision that the watch has told.
    told: u64,
}

impl Slot {
    /// False: it is older than what is known.
    fn see(&mut self, incarnation: &str, observation: Observation) -> bool {
        if self.incarnation != incarnation {
            incarnation.clone_into(&mut self.incarnation);
            self.observation = None;
            self.gone = None;
            self.told = 0;
        }
        let known = self.observation.as_ref();
        let is_older = known.is_some_and(|known| known.revision > observation.revision)
            || self.gone.is_some_and(|gone| gone >= observation.revision);
        if !is_older {
            self.gone = None;
            self.observation = Some(observation);
        }
        !is_older
    }

    /// False: it has been seen since.
    fn end(&mut self, revision: Option<u64>) -> bool {
        let known = (self.observation.as_ref()).map_or(0, |known| known.revision);
        // 0 is no revision: the driver did not say.
        let revision = revision.filter(|revision| *revision > 0).unwrap_or(known);
        let is_older = revision < known;
        if !is_older {
            self.gone = Some(revision);
        }
        !is_older
    }
}

/// What somebody wants of a sandbox, and who is to hear whether that is on record.
#[derive(Debug)]
struct Command {
    wish: Wish,
    /// Without one, what cannot be stored now is tried again until it can.
    reply: Option<oneshot::Sender<Result<(), StoreError>>>,
}

#[derive(Debug, Clone)]
enum Wish {
    Stop {
        grace: Duration,
    },
    Start,
    Delete {
        reason: &'static str,
        message: String,
    },
}

/// What every sandbox task needs.
struct Shared {
    store: Store,
    state_dir: StateDir,
    drivers: Registry,
    token_store: Arc<dyn TokenStore>,
    runtime_dir: PathBuf,
    gateway_id: String,
    create_timeout: Duration,
    session_timeout: Duration,
    tasks: TaskTracker,
    cancel: CancellationToken,
    index: Arc<directory::Index>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("gateway_id", &self.gateway_id)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn forget(&self, id: &SandboxId, name: Option<&SandboxName>) {
        self.index.remove(id, name);
    }
}

/// A handle to one sandbox.
#[derive(Debug, Clone)]
pub struct Sandbox {
    id: SandboxId,
    commands: mpsc::Sender<Command>,
    slot: Arc<watch::Sender<Slot>>,
    view: watch::Receiver<Arc<SandboxView>>,
    activity: Arc<watch::Sender<InUse>>,
}

/// The sandbox's task has ended: it is deleted, or the gateway is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sandbox is gone")]
pub struct Ended;

/// Nothing was done about a wish.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    #[error(transparent)]
    Ended(#[from] Ended),
    /// Not even the intent could be stored.
    #[error(transparent)]
    Store(StoreError),
}

impl Sandbox {
    pub fn id(&self) -> &SandboxId {
        &self.id
    }

    /// As it is now.
    pub fn view(&self) -> Arc<SandboxView> {
        self.view.borrow().clone()
    }

    /// Its changes.
    pub fn watch(&self) -> watch::Receiver<Arc<SandboxView>> {
        self.view.clone()
    }

    /// Waits until `wanted` holds.
    pub async fn wait_for(
        &self,
        mut wanted: impl FnMut(&SandboxView) -> bool,
    ) -> Result<Arc<SandboxView>, Ended> {
        let mut view = self.view.clone();
        let found = view
            .wait_for(|view| wanted(view))
            .await
            .map_err(|_| Ended)?;
        Ok(found.clone())
    }

    /// Returns once the intent is stored, as the two below do.
    pub async fn stop(&self, grace: Duration) -> Result<(), WishError> {
        self.wish(Wish::Stop { grace }).await
    }

    pub async fn start(&self) -> Result<(), WishError> {
        self.wish(Wish::Start).await
    }

    pub async fn delete(&self, reason: &'static str, message: String) -> Result<(), WishError> {
        self.wish(Wish::Delete { reason, message }).await
    }

    /// Has it deleted, now or as soon as the intent can be stored.
    pub async fn dismiss(&self, reason: &'static str, message: String) -> Result<(), Ended> {
        let wish = Wish::Delete { reason, message };
        let command = Command { wish, reply: None };
        self.commands.send(command).await.map_err(|_| Ended)
    }

    /// Waits until it is being deleted.
    pub async fn leaving(&self) -> Result<(), Ended> {
        let leaving = |view: &SandboxView| {
            matches!(
                view.facts.state,
                SandboxState::Deleting | SandboxState::Deleted
            )
        };
        self.wait_for(leaving).await.map(|_| ())
    }

    async fn wish(&self, wish: Wish) -> Result<(), WishError> {
        let (reply, answer) = oneshot::channel();
        let reply = Some(reply);
        let command = Command { wish, reply };
        self.commands.send(command).await.map_err(|_| Ended)?;
        let answer = answer.await.map_err(|_| Ended)?;
        answer.map_err(WishError::Store)
    }

    /// While the guard lives the sandbox is in use, and not idle.
    pub fn activity(&self, what: Use) -> Activity {
        self.activity.send_modify(|uses| *uses.of(what) += 1);
        Activity {
            what,
            uses: self.activity.clone(),
        }
    }

    pub fn in_use(&self) -> InUse {
        *self.activity.borrow()
    }

    /// What the driver's watch stream says.
    pub fn told(&self, incarnation: &str, observation: Observation) {
        self.slot.send_if_modified(|slot| {
            let revision = observation.revision;
            let is_news = slot.see(incarnation, observation);
            slot.told = slot.told.max(revision);
            is_news
        });
    }

    /// What the driver says when it is asked.
    pub fn observed(&self, incarnation: &str, observation: Observation, handle: Option<Handle>) {
        self.slot.send_if_modified(|slot| {
            let is_news = slot.see(incarnation, observation);
            let has_handle = handle.is_some();
            if has_handle {
                slot.handle = handle;
            }
            is_news || has_handle
        });
    }

    /// The driver says for certain that it is not there any more; by its watch, as of a revision.
    pub fn gone(&self, revision: Option<u64>) {
        self.slot.send_if_modified(|slot| slot.end(revision));
    }
}

/// Keeps a sandbox from being idle.
#[derive(Debug)]
pub struct Activity {
    what: Use,
    uses: Arc<watch::Sender<InUse>>,
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.uses.send_modify(|uses| {
            let count = uses.of(self.what);
            *count = count.saturating_sub(1);
        });
    }
}

/// What keeps it from being idle.
#[derive(Debug, Clone, Copy)]
pub enum Use {
    Execution,
    /// A copy, or a forwarded connection.
    Transfer,
}

/// What is under way in a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InUse {
    pub executions: u32,
    pub transfers: u32,
}

impl InUse {
    fn of(&mut self, what: Use) -> &mut u32 {
        match what {
            Use::Execution => &mut self.executions,
            Use::Transfer => &mut self.transfers,
        }
    }
}

/// What runs in it may live on; nothing can be started in it before its session is back.
pub fn is_session_lost(facts: &SandboxFacts) -> bool {
    facts.state == SandboxState::Provisioning && facts.reason == state::SESSION_LOST
}

/// Nothing of it will ever run again without somebody's doing.
pub fn is_settled(state: SandboxState) -> bool {
    matches!(
        state,
        SandboxState::Stopped
            | SandboxState::Failed
            | SandboxState::Deleting
            | SandboxState::Deleted
    )
}
