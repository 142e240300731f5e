//! All executions that have not ended, and the way to those that have.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::ending;
use super::follow::Follow;
use super::live::Live;
use super::places::{Crowd, Held, Places};
use super::runner::{self, Channels, Seed, SeedPlace};
use super::storing::STORE_RETRY;
use super::{CONTROL_MAX, Execution, STDIN_QUEUE_MAX, StdinProgress};
use crate::driver::Registry;
use crate::model::{
    DriverName, Environment, ExecutionFacts, ExecutionId, ExecutionReason, ExecutionState,
    SandboxState, UnixMillis,
};
use crate::output::{OutputError, OutputLog, OutputReader};
use crate::sandbox::{CreateError, NewSandbox, Sandbox, Sandboxes};
use crate::state_dir::{StateDir, Trouble};
use crate::store::{IdempotencyKey, Store, StoreError};

/// What the directory is made of.
#[derive(Debug)]
pub struct ExecutionsOptions {
    pub store: Store,
    pub state_dir: StateDir,
    pub drivers: Registry,
    pub sandboxes: Sandboxes,
    pub output_dir: PathBuf,
    pub running_max: usize,
    pub queue_max: usize,
    pub cancel_grace: Duration,
    pub session_timeout: Duration,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
}

/// What every runner needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) state_dir: StateDir,
    pub(super) drivers: Registry,
    pub(super) sandboxes: Sandboxes,
    pub(super) places: Places,
    pub(super) cancel_grace: Duration,
    pub(super) session_timeout: Duration,
    pub(super) cancel: CancellationToken,
    output_dir: PathBuf,
    unfinished_max: usize,
    /// Of the drivers that there are: they do not change.
    driver_names: Vec<DriverName>,
    tasks: TaskTracker,
    unfinished: RwLock<HashMap<ExecutionId, Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    execution: Execution,
    driver: DriverName,
    reader: Arc<OutputReader>,
}

impl Shared {
    /// What can be had at once: for a process that can start, or for one whose sandbox cannot yet.
    fn try_hold(&self, driver: &DriverName, is_ready: bool) -> Held {
        match is_ready {
            true => Held {
                running: self.places.running().try_acquire_owned().ok(),
                ..Held::default()
            },
            false => Held {
                of_driver: self.places.of_driver(driver).try_acquire_owned().ok(),
                ..Held::default()
            },
        }
    }

    pub(super) fn forget(&self, id: &ExecutionId) {
        self.unfinished
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }
}

/// An execution that has been checked and is to be run.
#[derive(Debug)]
pub struct NewExecution {
    pub facts: ExecutionFacts,
    pub environment: Environment,
    pub place: Place,
    /// The caller stays on the stream and gets every byte.
    pub attached: bool,
}

#[derive(Debug)]
pub enum Place {
    Existing(Sandbox),
    OneShot(Box<NewSandbox>),
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{max} executions are running or queued already, the limit of this gateway")]
    QueueFull { max: usize },
    #[error(
        "{count} executions of driver \"{driver}\" are running or queued already; the room that is \
         left is kept for the other drivers"
    )]
    PartFull { driver: DriverName, count: usize },
    /// Its record or its output could not be kept.
    #[error(transparent)]
    StateDir(#[from] Trouble),
    #[error(transparent)]
    Sandbox(#[from] CreateError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Starts, finds and follows executions.
#[derive(Debug, Clone)]
pub struct Executions {
    shared: Arc<Shared>,
}

impl Executions {
    pub fn new(options: ExecutionsOptions) -> Self {
        let drivers = options.drivers.list();
        let driver_names = drivers.iter().map(|driver| driver.name().clone());
        Self {
            shared: Arc::new(Shared {
                store: options.store,
                state_dir: options.state_dir,
                drivers: options.drivers,
                sandboxes: options.sandboxes,
                places: Places::new(options.running_max),
                driver_names: driver_names.collect(),
                cancel_grace: options.cancel_grace,
                session_timeout: options.session_timeout,
                cancel: options.cancel,
                output_dir: options.output_dir,
                unfinished_max: options.running_max.saturating_add(options.queue_max),
                tasks: options.tasks,
                unfinished: RwLock::default(),
            }),
        }
    }

    /// One that has not ended.
    pub fn find(&self, id: &ExecutionId) -> Option<Execution> {
        self.entry(id).map(|entry| entry.execution)
    }

    fn entry(&self, id: &ExecutionId) -> Option<Entry> {
        let unfinished = self
            .shared
            .unfinished
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        unfinished.get(id).cloned()
    }

    /// How many have not ended.
    pub fn count(&self) -> usize {
        let unfinished = self
            .shared
            .unfinished
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        unfinished.len()
    }

    /// Stores the record, then starts.
    pub async fn start(
        &self,
        mut new: NewExecution,
        key: Option<&IdempotencyKey>,
    ) -> Result<(Execution, Follow), StartError> {
        let driver = new.facts.driver.clone();
        self.admit(&driver)?;
        self.shared.state_dir.admit()?;
        let held = self.shared.try_hold(&driver, is_ready(&new.place));
        new.facts.state = match held.is_nothing() {
            false => ExecutionState::Claiming,
            true => ExecutionState::Queued,
        };
        let place = match new.place {
            Place::OneShot(sandbox) if !held.is_nothing() => {
                let sandboxes = &self.shared.sandboxes;
                let sandbox = sandboxes.create_one_shot(*sandbox, &new.facts, key).await?;
                SeedPlace::Existing(sandbox)
            }
            place => {
                self.shared.store.insert_execution(&new.facts, key).await?;
                match place {
                    Place::Existing(sandbox) => SeedPlace::Existing(sandbox),
                    Place::OneShot(sandbox) => SeedPlace::Planned(sandbox),
                }
            }
        };
        let log = OutputLog::create(self.output_dir(&new.facts.id), new.facts.output_cap_bytes);
        let seed = Seed {
            live: Live::new(0),
            facts: new.facts,
            environment: new.environment,
            held,
            place,
            log,
            resumed: false,
        };
        Ok(self.spawn(seed, new.attached))
    }

    /// Whether one more finds room.
    fn admit(&self, driver: &DriverName) -> Result<(), StartError> {
        let unfinished = self.shared.unfinished.read();
        let unfinished = unfinished.unwrap_or_else(PoisonError::into_inner);
        let max = self.shared.unfinished_max;
        // Below that everybody finds room.
        if unfinished.len() < max / 2 {
            return Ok(());
        }
        if unfinished.len() >= max {
            return Err(StartError::QueueFull { max });
        }
        let crowd: Crowd<'_> = unfinished.values().map(|entry| &entry.driver).collect();
        match crowd.admits(driver, self.shared.driver_names.iter(), max) {
            true => Ok(()),
            false => Err(StartError::PartFull {
                driver: driver.clone(),
                count: crowd.of(driver),
            }),
        }
    }

    fn output_dir(&self, id: &ExecutionId) -> PathBuf {
        self.shared.output_dir.join(id.as_str())
    }

    fn spawn(&self, seed: Seed, attached: bool) -> (Execution, Follow) {
        let (control, control_rx) = mpsc::channel(CONTROL_MAX);
        let (stdin, stdin_rx) = mpsc::channel(STDIN_QUEUE_MAX);
        let known = (!seed.resumed).then_some(StdinProgress {
            taken: 0,
            received: 0,
        });
        let (stdin_progress_tx, stdin_progress) = watch::channel(known);
        let (view_tx, view) = watch::channel(Arc::new(seed.facts.clone()));
        let execution = Execution {
            id: seed.facts.id.clone(),
            control,
            stdin,
            stdin_progress,
            view: view.clone(),
            live: seed.live.clone(),
        };
        let reader = Arc::new(seed.log.reader());
        let follow = Follow::live(seed.live.clone(), reader.another(), view, 0, attached);
        let entry = Entry {
            execution: execution.clone(),
            driver: seed.facts.driver.clone(),
            reader,
        };
        self.shared
            .unfinished
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(execution.id.clone(), entry);
        let channels = Channels {
            control: control_rx,
            stdin: stdin_rx,
            stdin_progress: stdin_progress_tx,
            view: view_tx,
        };
        self.shared
            .tasks
            .spawn(runner::run(self.shared.clone(), seed, channels));
        (execution, follow)
    }

    /// Follows one, whether it has ended or not. `None`: there is no such execution.
    pub async fn follow(
        &self,
        id: &ExecutionId,
        offset: u64,
        attached: bool,
    ) -> Result<Option<Follow>, FindError> {
        if let Some(Entry {
            execution, reader, ..
        }) = self.entry(id)
        {
            let live = execution.live.clone();
            let follow = Follow::live(live, reader.another(), execution.view, offset, attached);
            return Ok(Some(follow));
        }
        let Some(facts) = self.shared.store.execution(id).await? else {
            return Ok(None);
        };
        let reader = OutputReader::open(self.output_dir(id), facts.output_cap_bytes)?;
        Ok(Some(Follow::ended(facts, reader, offset)))
    }

    /// The facts, whether it has ended or not.
    pub async fn facts(&self, id: &ExecutionId) -> Result<Option<Arc<ExecutionFacts>>, FindError> {
        if let Some(execution) = self.find(id) {
            return Ok(Some(execution.facts()));
        }
        Ok(self.shared.store.execution(id).await?.map(Arc::new))
    }

    /// Takes over what an earlier life of the gateway left unfinished.
    pub async fn resume(&self, facts: ExecutionFacts) {
        let id = facts.id.clone();
        let sandbox = self.shared.sandboxes.get(&facts.sandbox_id);
        let started = facts.state != ExecutionState::Queued;
        let (Some(sandbox), true) = (sandbox, started) else {
            return self.never_ran(facts).await;
        };
        let log = match OutputLog::open(self.output_dir(&id), facts.output_cap_bytes) {
            Ok(log) => log,
            Err(error) => {
                warn!(execution.id = %id, %error, "its output cannot be read");
                let message = format!("its stored output cannot be read: {error}");
                return self.end_stored(facts, ending::lost(message)).await;
            }
        };
        info!(execution.id = %id, offset = log.end_offset(), "taking an execution over");
        let held = self.shared.try_hold(&facts.driver, true);
        let seed = Seed {
            live: Live::new(log.end_offset()),
            // Whoever followed it lost his stream with the gateway.
            facts: ExecutionFacts {
                detachable: true,
                ..facts
            },
            environment: Environment::default(),
            held,
            place: SeedPlace::Existing(sandbox),
            log,
            resumed: true,
        };
        self.spawn(seed, false);
    }

    async fn never_ran(&self, facts: ExecutionFacts) {
        let end = if facts.state == ExecutionState::Queued {
            let message = "the gateway restarted before it was started; it did not run".to_owned();
            let ending = ending::plain(ExecutionReason::GatewayFault, message);
            (ExecutionState::Failed, ending)
        } else {
            ending::lost("its sandbox was gone when the gateway started again")
        };
        self.end_stored(facts, end).await;
    }

    async fn end_stored(
        &self,
        mut facts: ExecutionFacts,
        (state, ending): (ExecutionState, crate::model::Ending),
    ) {
        facts.state = state;
        facts.ending = Some(ending);
        facts.end_time = UnixMillis::now();
        let Err(error) = self.shared.store.update_execution(&facts).await else {
            return;
        };
        warn!(execution.id = %facts.id, %error, "its end is not on record yet");
        // Nobody waits for it, but whoever looks should not find it running for ever.
        let (store, cancel) = (self.shared.store.clone(), self.shared.cancel.clone());
        self.shared
            .tasks
            .spawn(cancel.run_until_cancelled_owned(async move {
                while store.update_execution(&facts).await.is_err() {
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }));
    }

    /// Waits until nobody is waiting for one that is unfinished, or until `deadline`. What goes on
    /// without anyone who follows it goes on without a gateway, too. True: nobody waits.
    pub async fn drained(&self, deadline: Instant) -> bool {
        loop {
            let one = {
                let unfinished = self
                    .shared
                    .unfinished
                    .read()
                    .unwrap_or_else(PoisonError::into_inner);
                let mut all = unfinished.values().map(|entry| &entry.execution);
                all.find(|execution| execution.is_waited_for()).cloned()
            };
            let Some(one) = one else {
                return true;
            };
            if tokio::time::timeout_at(deadline, one.ended())
                .await
                .is_err()
            {
                return false;
            }
            // It is forgotten a moment after it has ended.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn is_ready(place: &Place) -> bool {
    match place {
        Place::Existing(sandbox) => sandbox.view().facts.state == SandboxState::Ready,
        Place::OneShot(_) => false,
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Output(#[from] OutputError),
}
