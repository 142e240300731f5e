//! The contract on this platform: finds the sandbox, and leaves the rest to who knows it.
//!
//! Nothing here is kept only in memory. The map of sandboxes is what the records on disk say, and
//! is read again whenever an id is not in it; so a driver that is killed loses nothing, and a
//! sandbox notices nothing.

mod create;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_driver_sdk::proto::{
    Capabilities, FieldViolation, FingerprintResponse, ReadConsoleRequest, Sandbox, SandboxSpec,
    SandboxState, SandboxStatsResponse,
};
use cofferdam_driver_sdk::supervisor::Token;
use cofferdam_driver_sdk::{
    Call, ComputeDriver, Context, CreateRequest, Created, DriverError, DriverStream, Inventory,
    RecoverItem, Recovered,
};

use crate::config::{DRIVER_CONFIG_SCHEMA, SETTINGS_SCHEMA, Settings, Surroundings};
use crate::fingerprint::Examination;
use crate::launch::{self, ControlError, Observation};
use crate::platform::{self, Platform};
use crate::tracked::{Tracked, now_unix_ms};
use crate::{console, error, plan, recover, watch};

/// Beyond the grace, until the kernel has taken a sandbox down.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// For each thing that has to end when a sandbox is destroyed.
const DESTROY_LIMIT: Duration = Duration::from_secs(30);

/// How long a shim may be on its way whose driver was killed: many times what a launch takes.
const HALF_MADE_PATIENCE: Duration = Duration::from_secs(5);

/// The process driver. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct ProcessDriver(Arc<State>);

#[derive(Debug)]
struct State {
    context: Context,
    here: Surroundings,
    /// None until the driver has been configured.
    platform: RwLock<Option<Arc<Platform>>>,
    sandboxes: Mutex<HashMap<String, Arc<Tracked>>>,
    examination: Examination,
}

impl ProcessDriver {
    /// A driver in these surroundings.
    pub fn new(context: Context, here: Surroundings) -> Self {
        Self(Arc::new(State {
            context,
            here,
            platform: RwLock::default(),
            sandboxes: Mutex::default(),
            examination: Examination::default(),
        }))
    }

    fn configured(&self) -> Option<Arc<Platform>> {
        let platform = self.0.platform.read();
        platform.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn platform(&self) -> Result<Arc<Platform>, DriverError> {
        // The server lets nothing through before Configure.
        self.configured()
            .ok_or_else(|| DriverError::internal("the driver is used before it is configured"))
    }

    fn sandboxes(&self) -> MutexGuard<'_, HashMap<String, Arc<Tracked>>> {
        self.0
            .sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox of this gateway, if there is one, also if it is known only from its record.
    fn find(&self, call: &Call, id: &str) -> Result<Option<Arc<Tracked>>, DriverError> {
        let known = self.sandboxes().get(id).cloned();
        let tracked = match known {
            Some(tracked) => Some(tracked),
            None => {
                let platform = self.platform()?;
                let stored = platform.store.get(id);
                let stored =
                    stored.map_err(|failed| error::store("read", platform.store.dir(), failed))?;
                stored.map(|stored| self.adopt(&platform, stored))
            }
        };
        Ok(tracked.filter(|tracked| tracked.stored().gateway_id == call.gateway_id()))
    }

    fn known(&self, call: &Call, id: &str) -> Result<Arc<Tracked>, DriverError> {
        self.find(call, id)?
            .ok_or_else(|| DriverError::sandbox_not_found(id))
    }

    /// Takes a sandbox that was found on disk, and watches it. One that is known stays as it is.
    fn adopt(&self, platform: &Platform, stored: crate::store::Stored) -> Arc<Tracked> {
        let id = stored.sandbox_id.clone();
        let state_dir = platform.config.sandboxes_dir().join(&id);
        let patience = platform.config.launch_timeout.min(HALF_MADE_PATIENCE);
        let tracked = match self.sandboxes().entry(id) {
            Entry::Occupied(known) => return Arc::clone(known.get()),
            Entry::Vacant(place) => {
                let adopted = Tracked::adopted(state_dir, stored, patience);
                Arc::clone(place.insert(Arc::new(adopted)))
            }
        };
        // Reported before anybody can ask: a watcher's first snapshot is whole.
        let _ = tracked.look(&self.0.context.observations);
        watch::spawn(&self.0.context, &tracked);
        tracked
    }

    /// Sees to it that the next launch finds its shim ready, in its own time.
    fn keep_spare(&self, platform: &Platform, after: Duration) {
        let (spare, shutdown) = (platform.spare.clone(), self.0.context.shutdown.clone());
        self.0.context.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(after) => spare.fill(),
                () = shutdown.cancelled() => {}
            }
        });
    }

    fn look(&self, tracked: &Tracked) -> Result<(Sandbox, Observation), DriverError> {
        let id = || tracked.stored().sandbox_id;
        tracked
            .look(&self.0.context.observations)
            .ok_or_else(|| DriverError::sandbox_not_found(&id()))
    }

    /// Everything on disk; true if all of it could be read. Blocks briefly.
    fn adopt_all(&self, platform: &Platform) -> Result<bool, DriverError> {
        let found = platform.store.list();
        let found = found.map_err(|failed| error::store("read", platform.store.dir(), failed))?;
        for path in &found.unreadable {
            tracing::warn!(
                path = %path.display(),
                "a record cannot be read: it is damaged, or of a newer driver; the list of \
                 sandboxes is not complete while it is there"
            );
        }
        for stored in found.records {
            self.adopt(platform, stored);
        }
        Ok(found.unreadable.is_empty())
    }

    fn forget(&self, platform: &Platform, tracked: &Tracked) -> Result<(), DriverError> {
        let id = tracked.stored().sandbox_id;
        let removed = platform.store.remove(&id);
        removed.map_err(|failed| error::store("remove from", platform.store.dir(), failed))?;
        self.sandboxes().remove(&id);
        tracked.is_gone();
        Ok(())
    }
}

impl ComputeDriver for ProcessDriver {
    const NAME: &'static str = "process";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn description(&self) -> String {
        let what = "Linux namespaces on this host, with nothing to install";
        match self.configured() {
            Some(platform) => format!("{what}; state in {}", platform.config.state_dir.display()),
            None => what.to_owned(),
        }
    }

    fn settings_schema() -> &'static str {
        SETTINGS_SCHEMA
    }

    fn driver_config_schema() -> &'static str {
        DRIVER_CONFIG_SCHEMA
    }

    fn capabilities(&self) -> Capabilities {
        let platform = self.configured();
        platform::capabilities(platform.as_deref().map(|platform| &platform.config))
    }

    async fn configure(&self, settings: Settings) -> Result<(), DriverError> {
        let config = settings
            .resolve(&self.0.here)
            .map_err(DriverError::invalid)?;
        let same = self
            .configured()
            .filter(|platform| platform.config == config);
        let driver = self.clone();
        blocking(move || {
            let platform = match same {
                Some(platform) => platform,
                None => Arc::new(Platform::open(config)?),
            };
            driver.adopt_all(&platform)?;
            let mut configured = driver
                .0
                .platform
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *configured = Some(platform);
            Ok(())
        })
        .await
    }

    async fn fingerprint(&self) -> FingerprintResponse {
        let sandboxes = self.sandboxes().len() as u64;
        match self.configured() {
            Some(platform) => self.0.examination.fingerprint(&platform, sandboxes).await,
            None => FingerprintResponse::default(),
        }
    }

    async fn validate(
        &self,
        call: &Call,
        spec: &SandboxSpec,
    ) -> Result<Vec<FieldViolation>, DriverError> {
        let _ = call;
        let platform = self.platform()?;
        let canonicalize = |path: &std::path::Path| path.canonicalize();
        let planned = plan::plan("x", spec, "/".into(), &platform.config, &canonicalize);
        Ok(planned.err().unwrap_or_default())
    }

    async fn create(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        // A task of its own: what was begun is finished, though the caller may have gone.
        let (driver, call) = (self.clone(), call.clone());
        let making = self
            .0
            .context
            .tasks
            .spawn(async move { driver.make(&call, request).await });
        making
            .await
            .unwrap_or_else(|died| Err(DriverError::internal("making a sandbox").because(died)))
    }

    async fn recover(&self, call: &Call, item: RecoverItem) -> Recovered {
        let observed = async {
            let Some(tracked) = self.find(call, &item.sandbox_id)? else {
                return Ok(None);
            };
            tracked.compare_callback(item.callback_directory.as_deref());
            self.look(&tracked).map(|(sandbox, _)| Some(sandbox))
        };
        let state_dir = self
            .configured()
            .map(|platform| platform.config.state_dir.clone());
        recover::outcome(&item, state_dir.as_deref(), observed.await)
    }

    async fn start(&self, call: &Call, id: &str, token: Token) -> Result<Sandbox, DriverError> {
        let tracked = self.known(call, id)?;
        let _operation = tracked.operation.lock().await;
        let (sandbox, _) = self.look(&tracked)?;
        match sandbox.state() {
            SandboxState::Running => return Ok(sandbox),
            // By the state that callers see: the shim of one that is over may live a moment yet.
            SandboxState::Stopped => {}
            _ => {
                let why = sandbox
                    .termination
                    .map(|ended| ended.message)
                    .unwrap_or_default();
                return Err(DriverError::precondition(
                    "SANDBOX_STATE",
                    id,
                    format!("the sandbox cannot be started again: {why}"),
                    "delete it",
                ));
            }
        }
        let limit = self.platform()?.config.launch_timeout;
        let bootstrap = create::bootstrap(&tracked.stored(), token);
        // Cancelled here, the shim goes on; the next call finds the sandbox running.
        let started = tracked.control().start(&bootstrap, limit).await;
        tracked.news.notify_waiters();
        let (sandbox, _) = self.look(&tracked)?;
        match started {
            // What an earlier call began, whose driver died in it, was done in the meantime.
            Err(ControlError::Refused(_)) if sandbox.state() == SandboxState::Running => {
                Ok(sandbox)
            }
            Err(failed) => Err(error::control(failed)),
            Ok(_) => Ok(sandbox),
        }
    }

    async fn stop(&self, call: &Call, id: &str, grace: Duration) -> Result<Sandbox, DriverError> {
        let tracked = self.known(call, id)?;
        // Cancelled here, the shim goes on stopping it; the next call joins.
        let stopped = tracked.control().stop(grace, grace + STOP_MARGIN).await;
        tracked.news.notify_waiters();
        let (sandbox, observation) = self.look(&tracked)?;
        match (stopped, observation) {
            (_, Observation::Stopped | Observation::Ended | Observation::Lost) => Ok(sandbox),
            (Err(ControlError::Unreachable { .. }), Observation::HalfMade) => Ok(sandbox),
            (Err(failed), _) => Err(error::control(failed)),
            (Ok(_), _) => Err(DriverError::aborted(format!(
                "sandbox {id:?} was started again while it was being stopped"
            ))),
        }
    }

    async fn delete(&self, call: &Call, id: &str) -> Result<(), DriverError> {
        let Some(tracked) = self.find(call, id)? else {
            return Ok(());
        };
        let _operation = tracked.operation.lock().await;
        // Cancelled here, the record is still there and the next call goes on.
        let limit = call.remaining(DESTROY_LIMIT);
        launch::destroy(&tracked.state_dir, limit)
            .await
            .map_err(error::destroy)?;
        let platform = self.platform()?;
        self.forget(&platform, &tracked)?;
        self.keep_spare(&platform, Duration::ZERO);
        Ok(())
    }

    async fn get(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        let tracked = self.known(call, id)?;
        self.look(&tracked).map(|(sandbox, _)| sandbox)
    }

    async fn list(&self, call: &Call) -> Result<Inventory, DriverError> {
        let (driver, gateway_id) = (self.clone(), call.gateway_id().to_owned());
        blocking(move || {
            let complete = driver.adopt_all(&*driver.platform()?)?;
            let tracked: Vec<_> = driver.sandboxes().values().cloned().collect();
            let ours = tracked
                .iter()
                .filter(|one| one.stored().gateway_id == gateway_id);
            // One that was removed meanwhile is left out.
            let sandboxes = ours
                .filter_map(|one| Some(driver.look(one).ok()?.0))
                .collect();
            Ok(Inventory {
                sandboxes,
                complete,
            })
        })
        .await
    }

    async fn read_console(
        &self,
        call: &Call,
        request: ReadConsoleRequest,
    ) -> Result<DriverStream<Bytes>, DriverError> {
        let tracked = self.known(call, &request.sandbox_id)?;
        Ok(console::read(
            tracked.state_dir.clone(),
            request.tail_bytes,
            request.follow,
        ))
    }

    async fn stats(&self, call: &Call, id: &str) -> Result<SandboxStatsResponse, DriverError> {
        let tracked = self.known(call, id)?;
        let leaf = launch::observe(&tracked.state_dir).and_then(|seen| seen.cgroup());
        let stats = leaf.map(|leaf| leaf.stats()).unwrap_or_default();
        Ok(SandboxStatsResponse {
            time_unix_ms: now_unix_ms(),
            cpu_us: stats.cpu_usec,
            memory_bytes: stats.memory_bytes,
            memory_peak_bytes: stats.memory_peak_bytes,
            pids: stats.pids,
            io_read_bytes: stats.io_read_bytes,
            io_write_bytes: stats.io_write_bytes,
            oom_kill_count: stats.oom_kills,
            ..SandboxStatsResponse::default()
        })
    }
}

/// Runs work that waits for files on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DriverError> + Send + 'static,
) -> Result<T, DriverError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|died| Err(DriverError::internal("a task ended early").because(died)))
}
