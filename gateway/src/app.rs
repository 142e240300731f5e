//! Composes a configuration into a running gateway, and takes it apart again.
//!
//! ```text
//!  open store ─► bind socket ─► resume sandboxes, executions ─► start drivers ─► serve
//!                                             drivers answered, inventories taken ─► READY
//!  shutdown: take no new work ─► let executions end (deadline) ─► cut streams ─► close store
//! ```
//!
//! Sandboxes outlive it: what is still running is found again by the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::api::{Api, ApiServer, BindError};
use crate::callback::{TokenStore, TokenStoreError};
use crate::config::Config;
use crate::driver::{Registry, RegistryOptions, SupervisorBinary, SupervisorBinaryError, Timing};
use crate::execution::{Executions, ExecutionsOptions};
use crate::model::{ExecutionState, SandboxId, SandboxState, Token, UnixMillis};
use crate::reconcile;
use crate::sandbox::{SandboxView, Sandboxes, SandboxesOptions};
use crate::state_dir::StateDir;
use crate::store::{Durability, Store, StoreError};

/// Drivers' news that may wait; a full queue makes the drivers' watches wait.
const EVENTS_MAX: usize = 1_024;
/// `ready` waits at most this long for drivers that do not answer.
const DRIVERS_PATIENCE: Duration = Duration::from_secs(10);
/// Deletes under way get at least this long.
const DELETES_PATIENCE: Duration = Duration::from_secs(5);
/// Tasks get this long to end once they were told to.
const TASKS_PATIENCE: Duration = Duration::from_secs(5);
/// Ended executions are looked through for what is past its retention this often.
const RETENTION_INTERVAL: Duration = Duration::from_secs(600);
const RETENTION_PORTION: usize = 500;
const SANDBOXES_MAX_DEFAULT: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot make {path}")]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Supervisor(#[from] SupervisorBinaryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A running gateway.
#[derive(Debug)]
pub struct App {
    api: Api,
    sandboxes: Sandboxes,
    executions: Executions,
    drivers: Registry,
    store: Store,
    socket: PathBuf,
    /// New connections and new work end.
    stop: CancellationToken,
    /// Streams end.
    cut: CancellationToken,
    /// Sandbox tasks, runners and reconciling end; then the drivers.
    tasks_cancel: CancellationToken,
    drivers_cancel: CancellationToken,
    tasks: TaskTracker,
    server: TaskTracker,
}

/// Rotated tokens go to the store.
#[derive(Debug)]
struct StoredTokens(Store);

impl TokenStore for StoredTokens {
    fn rotate<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        current: &'a Token,
        next: &'a Token,
    ) -> BoxFuture<'a, Result<(), TokenStoreError>> {
        Box::pin(async move { Ok(self.0.rotate_token(sandbox, current, next).await?) })
    }
}

impl App {
    /// Starts everything; waits for no driver.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        make_private_directory(&config.state_dir)?;
        make_runtime_directory(&config.runtime_dir)?;
        let supervisor = SupervisorBinary::load(&config.supervisor).await?;
        let (store, state_dir) = open_store(&config).await?;
        let server = ApiServer::bind(&config.socket).await?;

        let tasks = TaskTracker::new();
        let tasks_cancel = CancellationToken::new();
        let drivers_cancel = CancellationToken::new();
        let (events, events_rx) = mpsc::channel(EVENTS_MAX);
        let drivers = Registry::start(RegistryOptions {
            specs: config.drivers.clone(),
            gateway_id: store.gateway_id().to_owned(),
            supervisor,
            runtime_dir: config.runtime_dir.clone(),
            events,
            cancel: drivers_cancel.clone(),
            tasks: tasks.clone(),
            timing: Timing::with(config.driver_timeout, config.driver_silence),
        });
        let sandboxes = Sandboxes::new(SandboxesOptions {
            store: store.clone(),
            state_dir: state_dir.clone(),
            drivers: drivers.clone(),
            token_store: Arc::new(StoredTokens(store.clone())),
            runtime_dir: config.runtime_dir.clone(),
            gateway_id: store.gateway_id().to_owned(),
            create_timeout: config.create_timeout,
            session_timeout: config.session_timeout,
            sandboxes_max: config
                .maximum
                .sandboxes
                .and_then(|max| usize::try_from(max).ok())
                .unwrap_or(SANDBOXES_MAX_DEFAULT),
            tasks: tasks.clone(),
            cancel: tasks_cancel.clone(),
        });
        let executions = Executions::new(ExecutionsOptions {
            store: store.clone(),
            state_dir: state_dir.clone(),
            drivers: drivers.clone(),
            sandboxes: sandboxes.clone(),
            output_dir: config.state_dir.join("output"),
            running_max: config.executions.running_max,
            queue_max: config.executions.queue_max,
            cancel_grace: config.executions.cancel_grace,
            session_timeout: config.session_timeout,
            tasks: tasks.clone(),
            cancel: tasks_cancel.clone(),
        });
        resume(&store, &sandboxes, &executions).await?;
        tasks.spawn(reconcile::run(
            events_rx,
            drivers.clone(),
            sandboxes.clone(),
            tasks_cancel.clone(),
        ));
        tasks.spawn(retain(
            store.clone(),
            config.state_dir.join("output"),
            config.executions.retention,
            tasks_cancel.clone(),
        ));
        let api = Api::new(
            &config,
            store.clone(),
            state_dir,
            drivers.clone(),
            sandboxes.clone(),
            executions.clone(),
        );
        let mut app = Self {
            api,
            sandboxes,
            executions,
            drivers,
            store,
            socket: config.socket.path.clone(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks_cancel,
            drivers_cancel,
            tasks,
            server: TaskTracker::new(),
        };
        app.serve(server);
        Ok(app)
    }

    fn serve(&mut self, server: ApiServer) {
        let (api, stop, cut) = (self.api.clone(), self.stop.clone(), self.cut.clone());
        self.server.spawn(async move {
            if let Err(error) = server.serve(api, stop, cut).await {
                warn!(%error, "the API's server ended badly");
            }
        });
    }

    /// Where callers connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until the drivers have answered, or have failed to.
    pub async fn ready(&self) {
        self.drivers.settled(DRIVERS_PATIENCE).await;
        self.api.set_ready();
    }

    /// Deletes every sandbox and waits until nothing is left, or `patience` is over: for a gateway
    /// that nobody will start again.
    pub async fn remove_everything(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let all = self.sandboxes.list();
        for sandbox in &all {
            let message = "its gateway ends for good".to_owned();
            let _gone = sandbox.dismiss("GATEWAY_ENDED", message).await;
        }
        for sandbox in &all {
            let gone = sandbox.wait_for(|view| view.facts.state == SandboxState::Deleted);
            if tokio::time::timeout_at(deadline, gone).await.is_err() {
                warn!("some sandboxes were not deleted in time; their deadlines end them");
                return;
            }
        }
    }

    /// How many sandboxes there are that have not been deleted.
    pub fn sandboxes_left(&self) -> usize {
        let all = self.sandboxes.list();
        let is_left = |view: &SandboxView| view.facts.state != SandboxState::Deleted;
        all.iter()
            .filter(|sandbox| is_left(&sandbox.view()))
            .count()
    }

    /// Deletes that are under way should not be left to the next start.
    async fn deletes_ended(&self, deadline: Instant) -> bool {
        for sandbox in self.sandboxes.list() {
            let leaving = |view: &SandboxView| view.facts.state == SandboxState::Deleting;
            if !leaving(&sandbox.view()) {
                continue;
            }
            let ended = sandbox.wait_for(|view| !leaving(view));
            if tokio::time::timeout_at(deadline, ended).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends the gateway. Executions get until `patience` is over to end by themselves; what is
    /// still running then goes on in its sandbox and is found again by the next start.
    pub async fn shutdown(self, patience: Duration) {
        self.api.drain();
        let deadline = Instant::now() + patience;
        if !self.executions.drained(deadline).await {
            info!(
                running = self.executions.count(),
                "executions go on without this gateway"
            );
        }
        let deletes = deadline.max(Instant::now() + DELETES_PATIENCE);
        if !self.deletes_ended(deletes).await {
            info!("deletes go on with the next start");
        }
        self.stop.cancel();
        self.server.close();
        // Those who still follow something are told by the end of their streams.
        self.tasks_cancel.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(1), self.server.wait()).await;
        if ended.is_err() {
            self.cut.cancel();
            self.server.wait().await;
        }
        self.drivers_cancel.cancel();
        self.tasks.close();
        if tokio::time::timeout(TASKS_PATIENCE, self.tasks.wait())
            .await
            .is_err()
        {
            warn!(left = self.tasks.len(), "tasks did not end in time");
        }
        self.store.close().await;
    }
}

/// On a full disk the reserve of an earlier life is room enough to take its work over.
async fn open_store(config: &Config) -> Result<(Store, StateDir), StoreError> {
    let directory = &config.state_dir;
    let state_dir = match config.durability {
        Durability::Lasting => StateDir::lasting(directory),
        Durability::Temporary => StateDir::temporary(directory),
    };
    let path = directory.join("gateway.db");
    let open = || Store::open_as(&path, config.durability, state_dir.clone());
    let store = match open().await {
        Err(StoreError::Full { .. } | StoreError::Failing { .. })
            if state_dir.release_reserve() =>
        {
            open().await?
        }
        opened => opened?,
    };
    Ok((store, state_dir))
}

async fn resume(
    store: &Store,
    sandboxes: &Sandboxes,
    executions: &Executions,
) -> Result<(), StartError> {
    let stored = store.sandboxes().await?;
    let unfinished = store.unfinished_executions().await?;
    if !stored.is_empty() || !unfinished.is_empty() {
        info!(
            sandboxes = stored.len(),
            executions = unfinished.len(),
            "taking over from an earlier gateway"
        );
    }
    let owners: std::collections::HashSet<_> = unfinished.iter().map(|e| e.id.clone()).collect();
    for sandbox in stored {
        let orphan = match &sandbox.facts.execution_id {
            Some(execution) => !owners.contains(execution),
            None => false,
        };
        let handle = sandboxes.resume(sandbox);
        if orphan {
            // Its execution has ended; only the delete was not written.
            let message = "its execution has ended".to_owned();
            let _gone = handle.dismiss("EXECUTION_ENDED", message).await;
        }
    }
    for execution in unfinished {
        let one_shot = execution.one_shot && execution.state == ExecutionState::Queued;
        let sandbox = execution.sandbox_id.clone();
        executions.resume(execution).await;
        if one_shot && let Some(sandbox) = sandboxes.get(&sandbox) {
            let message = "its execution did not run".to_owned();
            let _gone = sandbox.dismiss("EXECUTION_ENDED", message).await;
        }
    }
    Ok(())
}

/// Removes the output, then the record, of executions that ended long ago.
async fn retain(store: Store, output: PathBuf, retention: Duration, cancel: CancellationToken) {
    loop {
        let before = UnixMillis(
            UnixMillis::now()
                .0
                .saturating_sub(u64::try_from(retention.as_millis()).unwrap_or(u64::MAX)),
        );
        match store
            .executions_ended_before(before, RETENTION_PORTION)
            .await
        {
            Ok(old) => {
                for id in old {
                    if let Err(error) = crate::output::remove(&output.join(id.as_str())) {
                        warn!(execution.id = %id, %error, "old output was not removed");
                        continue;
                    }
                    if let Err(error) = store.remove_execution(&id).await {
                        warn!(execution.id = %id, %error, "an old record was not removed");
                    }
                }
            }
            Err(error) => warn!(%error, "old executions were not looked up"),
        }
        if let Err(error) = store.forget_keys_before(before).await {
            warn!(%error, "old idempotency keys were not removed");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(RETENTION_INTERVAL) => {}
        }
    }
}

fn make_private_directory(path: &Path) -> Result<(), StartError> {
    make_directory(path, 0o700)
}

/// Callers must be able to pass through to the socket, whose own mode says who may connect.
fn make_runtime_directory(path: &Path) -> Result<(), StartError> {
    make_directory(path, 0o755)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| StartError::Directory {
            path: path.to_path_buf(),
            source,
        })
}
