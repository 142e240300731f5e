//! All sandboxes of this gateway, by id and by name.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::task::{self, Channels, Seed};
use super::{COMMANDS_MAX, InUse, Sandbox, SandboxView, Shared, Slot};
use crate::callback::{TokenStore, Tokens};
use crate::driver::Registry;
use crate::model::{
    DriverName, Environment, ExecutionFacts, SandboxFacts, SandboxId, SandboxName, Token,
};
use crate::state_dir::{StateDir, Trouble};
use crate::store::{IdempotencyKey, Store, StoreError, StoredSandbox};

/// What the directory is made of.
#[expect(
    missing_debug_implementations,
    reason = "it only carries parts to `Sandboxes::new`"
)]
pub struct SandboxesOptions {
    pub store: Store,
    pub state_dir: StateDir,
    pub drivers: Registry,
    pub token_store: Arc<dyn TokenStore>,
    pub runtime_dir: PathBuf,
    pub gateway_id: String,
    pub create_timeout: Duration,
    pub session_timeout: Duration,
    pub sandboxes_max: usize,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
}

/// A sandbox that has been checked and is to be made.
#[derive(Debug)]
pub struct NewSandbox {
    pub facts: SandboxFacts,
    pub environment: Environment,
    /// Counted from when it is made, which for a queued one is later.
    pub lifetime: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("this gateway holds {max} sandboxes already, its limit")]
    TooMany { max: usize },
    /// Its record could not be kept.
    #[error(transparent)]
    StateDir(#[from] Trouble),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who is there. Locked for look-ups only, never across an await.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: RwLock<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<SandboxId, Sandbox>,
    by_name: HashMap<SandboxName, SandboxId>,
}

impl Index {
    fn insert(&self, sandbox: Sandbox, name: Option<SandboxName>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = name {
            entries.by_name.insert(name, sandbox.id.clone());
        }
        entries.by_id.insert(sandbox.id.clone(), sandbox);
    }

    pub(super) fn remove(&self, id: &SandboxId, name: Option<&SandboxName>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.by_id.remove(id);
        if let Some(name) = name
            && entries.by_name.get(name) == Some(id)
        {
            entries.by_name.remove(name);
        }
    }

    fn read<T>(&self, look: impl FnOnce(&Entries) -> T) -> T {
        look(&self.entries.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Finds, makes and resumes sandboxes.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    shared: Arc<Shared>,
    sandboxes_max: usize,
}

impl Sandboxes {
    pub fn new(options: SandboxesOptions) -> Self {
        let shared = Shared {
            store: options.store,
            state_dir: options.state_dir,
            drivers: options.drivers,
            token_store: options.token_store,
            runtime_dir: options.runtime_dir,
            gateway_id: options.gateway_id,
            create_timeout: options.create_timeout,
            session_timeout: options.session_timeout,
            tasks: options.tasks,
            cancel: options.cancel,
            index: Arc::new(Index::default()),
        };
        Self {
            shared: Arc::new(shared),
            sandboxes_max: options.sandboxes_max,
        }
    }

    /// By id, or by name.
    pub fn find(&self, id_or_name: &str) -> Option<Sandbox> {
        self.shared.index.read(|entries| {
            if let Ok(id) = SandboxId::parse(id_or_name)
                && let Some(sandbox) = entries.by_id.get(&id)
            {
                return Some(sandbox.clone());
            }
            let name = SandboxName::parse(id_or_name).ok()?;
            let id = entries.by_name.get(&name)?;
            entries.by_id.get(id).cloned()
        })
    }

    pub fn get(&self, id: &SandboxId) -> Option<Sandbox> {
        self.shared
            .index
            .read(|entries| entries.by_id.get(id).cloned())
    }

    /// Sorted by id, which is by time of creation.
    pub fn list(&self) -> Vec<Sandbox> {
        let mut all: Vec<Sandbox> = self
            .shared
            .index
            .read(|entries| entries.by_id.values().cloned().collect());
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Those that live on one driver.
    pub fn of_driver(&self, driver: &DriverName) -> Vec<Sandbox> {
        let mut all = self.list();
        all.retain(|sandbox| sandbox.view().facts.driver == *driver);
        all
    }

    /// Stores the record, then starts the task. Nothing is made before the record is written.
    pub async fn create(
        &self,
        new: NewSandbox,
        key: Option<&IdempotencyKey>,
    ) -> Result<Sandbox, CreateError> {
        self.admit()?;
        let (token, next) = (Token::generate(), Token::generate());
        self.shared
            .store
            .insert_sandbox(&new.facts, (&token, &next), key)
            .await?;
        Ok(self.spawn_new(new, token, next))
    }

    /// The same, together with the record of the execution that it is for.
    pub async fn create_one_shot(
        &self,
        new: NewSandbox,
        execution: &ExecutionFacts,
        key: Option<&IdempotencyKey>,
    ) -> Result<Sandbox, CreateError> {
        self.admit()?;
        let (token, next) = (Token::generate(), Token::generate());
        self.shared
            .store
            .insert_one_shot(&new.facts, (&token, &next), execution, key)
            .await?;
        Ok(self.spawn_new(new, token, next))
    }

    fn admit(&self) -> Result<(), CreateError> {
        let max = self.sandboxes_max;
        if self.shared.index.read(|entries| entries.by_id.len()) >= max {
            return Err(CreateError::TooMany { max });
        }
        Ok(self.shared.state_dir.admit()?)
    }

    /// What the first session is offered is stored already: its hello does not wait for the store.
    fn spawn_new(&self, new: NewSandbox, token: Token, next: Token) -> Sandbox {
        self.spawn(Seed {
            facts: new.facts,
            tokens: Tokens {
                current: token,
                next: Some(next),
            },
            environment: new.environment,
            resumed: false,
        })
    }

    /// Takes a sandbox over from an earlier life of the gateway.
    pub fn resume(&self, stored: StoredSandbox) -> Sandbox {
        self.spawn(Seed {
            facts: stored.facts,
            tokens: Tokens {
                current: stored.current,
                next: stored.next,
            },
            environment: Environment::default(),
            resumed: true,
        })
    }

    fn spawn(&self, seed: Seed) -> Sandbox {
        let (commands, commands_rx) = mpsc::channel(COMMANDS_MAX);
        let (slot, slot_rx) = watch::channel(Slot::default());
        let (activity, activity_rx) = watch::channel(InUse::default());
        let (view_tx, view) = watch::channel(Arc::new(SandboxView {
            facts: seed.facts.clone(),
            session: None,
            callback_directory: PathBuf::new(),
        }));
        let sandbox = Sandbox {
            id: seed.facts.id.clone(),
            commands,
            slot: Arc::new(slot),
            view,
            activity: Arc::new(activity),
        };
        self.shared
            .index
            .insert(sandbox.clone(), seed.facts.name.clone());
        let channels = Channels {
            commands: commands_rx,
            slot: slot_rx,
            view: view_tx,
            activity: activity_rx,
            cancel: self.shared.cancel.child_token(),
        };
        self.shared
            .tasks
            .spawn(task::run(self.shared.clone(), seed, channels));
        sandbox
    }
}
