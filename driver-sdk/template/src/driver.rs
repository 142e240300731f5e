//! The contract: finds the sandbox, asks the platform, answers. See
//! [`ComputeDriver`](cofferdam_driver_sdk::ComputeDriver) for what each method promises.
//!
//! Nothing is kept only in memory: the map of sandboxes is what the records say, and is read again
//! when an id is not in it. Work that must not be cut in the middle runs as a task of its own; the
//! call that asked for it only waits.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_driver_sdk::capabilities::{failed, fingerprint, passed, supervised, warning};
use cofferdam_driver_sdk::proto::{
    Capabilities, FieldViolation, FingerprintResponse, ImageSources, Isolation, NetworkClass,
    ReadConsoleRequest, Resources, Sandbox, SandboxSpec, SandboxState,
};
use cofferdam_driver_sdk::supervisor::{
    Bootstrap, OOM_SCORE_ADJ, SupervisorCache, Token, Workload,
};
use cofferdam_driver_sdk::{
    Call, ComputeDriver, Context, CreateRequest, Created, DriverError, DriverStream, Inventory,
    RecoverItem, Recovered, handle,
};

use crate::config::{Config, DRIVER_CONFIG_SCHEMA, SETTINGS_SCHEMA, Settings, Surroundings};
use crate::keeper::now_unix_ms;
use crate::plan::{self, Ourselves};
use crate::platform::{self, Observation};
use crate::record::{self, Record, Records, SandboxHandle};
use crate::sandbox::Tracked;
use crate::{console, watch};

/// For everything that has to end when a sandbox is stopped or destroyed.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The driver. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct SandboxDriver(Arc<State>);

#[derive(Debug)]
struct State {
    context: Context,
    here: Surroundings,
    /// None until the driver has been configured.
    configured: RwLock<Option<Configured>>,
    sandboxes: Mutex<HashMap<String, Arc<Tracked>>>,
    supervisors: Arc<SupervisorCache>,
}

#[derive(Debug, Clone)]
struct Configured {
    config: Config,
    records: Records,
}

impl SandboxDriver {
    /// A driver in these surroundings. Touches nothing yet.
    pub fn new(context: Context, here: Surroundings) -> Self {
        Self(Arc::new(State {
            context,
            here,
            configured: RwLock::default(),
            sandboxes: Mutex::default(),
            supervisors: Arc::default(),
        }))
    }

    fn configured(&self) -> Result<Configured, DriverError> {
        let configured = self.0.configured.read();
        let configured = configured.unwrap_or_else(PoisonError::into_inner).clone();
        // The SDK lets nothing else through before Configure.
        configured.ok_or_else(|| DriverError::internal("used before it was configured"))
    }

    fn sandboxes(&self) -> MutexGuard<'_, HashMap<String, Arc<Tracked>>> {
        let sandboxes = self.0.sandboxes.lock();
        sandboxes.unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox of the gateway that calls, also if it is known only from its record.
    fn find(&self, call: &Call, id: &str) -> Result<Option<Arc<Tracked>>, DriverError> {
        let known = self.sandboxes().get(id).cloned();
        let tracked = match known {
            Some(tracked) => Some(tracked),
            None => {
                let Configured { records, .. } = self.configured()?;
                let record = records.get(id).map_err(unreadable)?;
                record.map(|record| self.adopt(&records, record))
            }
        };
        Ok(tracked.filter(|tracked| tracked.record().gateway_id == call.gateway_id()))
    }

    fn known(&self, call: &Call, id: &str) -> Result<Arc<Tracked>, DriverError> {
        self.find(call, id)?
            .ok_or_else(|| DriverError::sandbox_not_found(id))
    }

    /// Takes a sandbox that was found on disk, reports it, and watches it.
    fn adopt(&self, records: &Records, record: Record) -> Arc<Tracked> {
        let id = record.sandbox_id.clone();
        let tracked = match self.sandboxes().entry(id.clone()) {
            Entry::Occupied(known) => return Arc::clone(known.get()),
            Entry::Vacant(place) => {
                let found = Tracked::found(records.sandbox_dir(&id), record);
                Arc::clone(place.insert(Arc::new(found)))
            }
        };
        let _ = tracked.look(&self.0.context.observations);
        watch::spawn(&self.0.context, &tracked);
        tracked
    }

    /// Everything on disk. True if all of it could be read: only then is a list complete.
    fn adopt_all(&self, records: &Records) -> Result<bool, DriverError> {
        let found = records.all().map_err(unreadable)?;
        for path in &found.unreadable {
            tracing::warn!(path = %path.display(), "a record cannot be read; no list is complete");
        }
        for record in found.records {
            self.adopt(records, record);
        }
        Ok(found.unreadable.is_empty())
    }

    fn look(&self, tracked: &Tracked) -> Result<(Sandbox, Observation), DriverError> {
        tracked
            .look(&self.0.context.observations)
            .ok_or_else(|| DriverError::sandbox_not_found(&tracked.record().sandbox_id))
    }

    fn forget(&self, records: &Records, tracked: &Tracked) -> Result<(), DriverError> {
        let id = tracked.record().sandbox_id;
        records.remove(&id).map_err(unwritable)?;
        self.sandboxes().remove(&id);
        tracked.is_gone();
        Ok(())
    }

    /// The sandbox of this request: the one that exists, or a new one.
    async fn make(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        let Configured { config, records } = self.configured()?;
        let id = request.sandbox_id.clone();
        if let Some(tracked) = self.find(call, &id)? {
            request.digest.check(&tracked.record().spec_digest, &id)?;
            // An earlier call may have gone while its work goes on: this waits for it.
            let _operation = tracked.operation.lock().await;
            let (sandbox, observation) = self.look(&tracked)?;
            if observation != Observation::Absent {
                return created(&config, sandbox);
            }
            // Intent without a deed: a driver was killed in between. Made anew.
            platform::destroy(&tracked.dir, config.launch_timeout).await?;
            self.forget(&records, &tracked)?;
        }
        let plan = plan::plan(&request.spec, Ourselves::here()).map_err(DriverError::invalid)?;
        let record = Record {
            version: record::VERSION,
            sandbox_id: id.clone(),
            gateway_id: call.gateway_id().to_owned(),
            spec_digest: request.digest.to_hex(),
            create_time_unix_ms: now_unix_ms(),
            callback_directory: request.callback_directory.unwrap_or_default(),
            plan,
        };
        let tracked = self.accept(&records, record)?;
        let _operation = tracked.operation.lock().await;
        if let Err(error) = self.boot(call, &config, &tracked, 1, request.token).await {
            // Nothing is left behind; what cannot be removed stays on record, and can be deleted.
            platform::destroy(&tracked.dir, END_LIMIT).await?;
            self.forget(&records, &tracked)?;
            return Err(error);
        }
        watch::spawn(&self.0.context, &tracked);
        created(&config, self.look(&tracked)?.0)
    }

    /// Writes the intent down before the deed.
    fn accept(&self, records: &Records, record: Record) -> Result<Arc<Tracked>, DriverError> {
        let id = record.sandbox_id.clone();
        let mut sandboxes = self.sandboxes();
        if sandboxes.contains_key(&id) {
            // Another gateway's: this one's would have been found.
            return Err(DriverError::sandbox_exists(&id));
        }
        records.put(&record).map_err(unwritable)?;
        let tracked = Arc::new(Tracked::new(records.sandbox_dir(&id), record));
        sandboxes.insert(id, Arc::clone(&tracked));
        Ok(tracked)
    }

    async fn boot(
        &self,
        call: &Call,
        config: &Config,
        tracked: &Tracked,
        boot: u64,
        token: Token,
    ) -> Result<(), DriverError> {
        let record = tracked.record();
        let (cache, gateway) = (Arc::clone(&self.0.supervisors), Arc::clone(&call.gateway));
        let instead = config.supervisor_path.clone();
        // Read once for each version of the gateway, checked, and kept in memory.
        let supervisor = tokio::task::spawn_blocking(move || {
            cache.open(gateway.supervisor.as_ref(), instead.as_deref())
        });
        let supervisor = supervisor
            .await
            .map_err(|error| DriverError::internal("reading the supervisor").because(error))??;
        platform::make(&tracked.dir, &record.plan)?;
        let bootstrap = bootstrap(tracked, &record, token);
        let context = &self.0.context;
        let launch = platform::Launch {
            dir: &tracked.dir,
            record: &record,
            boot,
            supervisor: &supervisor,
            bootstrap: &bootstrap,
        };
        platform::launch(context, config, launch).await?;
        tracked.news.notify_waiters();
        Ok(())
    }

    async fn start_again(
        &self,
        call: &Call,
        id: &str,
        token: Token,
    ) -> Result<Sandbox, DriverError> {
        let Configured { config, .. } = self.configured()?;
        let tracked = self.known(call, id)?;
        let _operation = tracked.operation.lock().await;
        let (sandbox, observation) = self.look(&tracked)?;
        match (sandbox.state(), observation) {
            (SandboxState::Running, _) => return Ok(sandbox),
            (SandboxState::Stopped, Observation::Ended(boot, _)) => {
                self.boot(call, &config, &tracked, boot.boot + 1, token)
                    .await?;
            }
            _ => {
                let why = sandbox.termination.unwrap_or_default().message;
                return Err(DriverError::precondition(
                    "SANDBOX_STATE",
                    id,
                    format!("the sandbox cannot be started again: {why}"),
                    "delete it",
                ));
            }
        }
        Ok(self.look(&tracked)?.0)
    }
}

fn unreadable(error: io::Error) -> DriverError {
    DriverError::unavailable("the records cannot be read").because(error)
}

fn unwritable(error: io::Error) -> DriverError {
    DriverError::unavailable("the records cannot be written").because(error)
}

fn created(config: &Config, sandbox: Sandbox) -> Result<Created, DriverError> {
    let handle = record::seal_handle(&config.state_dir)
        .map_err(|error| DriverError::internal("making a handle").because(error))?;
    Ok(Created { handle, sandbox })
}

fn bootstrap(tracked: &Tracked, record: &Record, token: Token) -> Bootstrap {
    let workspace = tracked.dir.join("workspace").display().to_string();
    Bootstrap {
        sandbox_id: record.sandbox_id.clone(),
        token,
        expire_time_unix_ms: record.plan.expire_time_unix_ms,
        workload: Workload {
            uid: record.plan.uid,
            gid: record.plan.gid,
            home: workspace.clone(),
            user: "sandbox".to_owned(),
        },
        workspace,
        // There is no image that could want any.
        environment: BTreeMap::new(),
        oom_score_adj: OOM_SCORE_ADJ,
    }
}

impl ComputeDriver for SandboxDriver {
    const NAME: &'static str = "skeleton";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn description(&self) -> String {
        let what = "plain processes in directories of their own, NO ISOLATION";
        match self.configured() {
            Ok(Configured { config, .. }) => format!("{what}; in {}", config.state_dir.display()),
            Err(_) => what.to_owned(),
        }
    }

    fn settings_schema() -> &'static str {
        SETTINGS_SCHEMA
    }

    fn driver_config_schema() -> &'static str {
        DRIVER_CONFIG_SCHEMA
    }

    /// REPLACE: claim what your platform enforces, and nothing else. What is claimed here is not
    /// asked for twice: the gateway refuses what is missing before it calls.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            images: Some(ImageSources {
                host: true,
                ..ImageSources::default()
            }),
            // All that a plain process can be given. A caller who says nothing wants NONE, and is
            // refused: claim it as soon as your platform keeps sandboxes off the network.
            networks: vec![NetworkClass::Open.into()],
            stop_start: true,
            console: true,
            choose_user: Ourselves::here().is_root(),
            ..supervised(Isolation::NoIsolation)
        }
    }

    async fn configure(&self, settings: Settings) -> Result<(), DriverError> {
        let config = settings
            .resolve(&self.0.here)
            .map_err(DriverError::invalid)?;
        let records = Records::open(&config.state_dir).map_err(|error| {
            let path = config.state_dir.display().to_string();
            DriverError::precondition(
                "STATE_DIR",
                path.clone(),
                format!("cannot make directories in {path}"),
                format!("make {path} writable for the driver's user, or set state_dir"),
            )
            .because(error)
        })?;
        // What an earlier run has left, before anybody asks.
        self.adopt_all(&records)?;
        let mut configured = self
            .0
            .configured
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *configured = Some(Configured { config, records });
        Ok(())
    }

    /// REPLACE: look at your platform. Each check says what was seen, and exactly what to do about
    /// it; people read it in `cofferdam doctor`.
    async fn fingerprint(&self) -> FingerprintResponse {
        let Ok(Configured { config, .. }) = self.configured() else {
            return FingerprintResponse::default();
        };
        let place = config.state_dir.join("sandboxes");
        let state_dir = match rustix::fs::access(&place, rustix::fs::Access::WRITE_OK) {
            Ok(()) => passed("state_dir", place.display().to_string()),
            Err(error) => failed(
                "state_dir",
                format!("{}: {error}", place.display()),
                "make it writable for the driver's user, or set state_dir",
            ),
        };
        FingerprintResponse {
            used: Some(Resources {
                sandboxes: Some(self.sandboxes().len() as u64),
                ..Resources::default()
            }),
            ..fingerprint(vec![
                state_dir,
                warning(
                    "isolation",
                    "NO ISOLATION: sandboxes are plain processes of this host",
                    "run only what you would run without a sandbox; make this driver a real one",
                ),
            ])
        }
    }

    async fn validate(
        &self,
        call: &Call,
        spec: &SandboxSpec,
    ) -> Result<Vec<FieldViolation>, DriverError> {
        let _ = call;
        Ok(plan::plan(spec, Ourselves::here())
            .err()
            .unwrap_or_default())
    }

    async fn create(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        // A task of its own: what was begun is finished, though the caller may have gone.
        let (driver, call) = (self.clone(), call.clone());
        let making = async move { driver.make(&call, request).await };
        finish(self.0.context.tasks.spawn(making).await)
    }

    async fn recover(&self, call: &Call, item: RecoverItem) -> Recovered {
        let unknown = |message: String| Recovered::Unknown { message };
        let handle = match item.handle.as_ref().map(handle::open::<SandboxHandle>) {
            // Of a newer driver, or damaged: not a reason to take the sandbox for gone.
            Some(Err(error)) => return unknown(error.to_string()),
            Some(Ok(handle)) => Some(handle),
            None => None,
        };
        let found = async {
            let configured = self.configured()?;
            let Some(tracked) = self.find(call, &item.sandbox_id)? else {
                return Ok((configured, None));
            };
            if let Some(directory) = item.callback_directory
                && directory != tracked.record().callback_directory
            {
                let record = tracked.set_callback_directory(directory);
                configured.records.put(&record).map_err(unwritable)?;
            }
            let sandbox = self.look(&tracked)?.0;
            Ok::<_, DriverError>((configured, Some(sandbox)))
        };
        match found.await {
            Err(error) => unknown(error.chain()),
            Ok((_, Some(sandbox))) => Recovered::Found {
                sandbox,
                handle: None,
            },
            Ok((Configured { config, .. }, None)) => match handle {
                Some(handle) if handle.state_dir != config.state_dir => unknown(format!(
                    "it was made under the state_dir {}, and this driver has another one",
                    handle.state_dir.display()
                )),
                _ => Recovered::Gone {
                    termination: None,
                    message: "there is no record of it".to_owned(),
                },
            },
        }
    }

    async fn start(&self, call: &Call, id: &str, token: Token) -> Result<Sandbox, DriverError> {
        let (driver, call, id) = (self.clone(), call.clone(), id.to_owned());
        let starting = async move { driver.start_again(&call, &id, token).await };
        finish(self.0.context.tasks.spawn(starting).await)
    }

    async fn stop(&self, call: &Call, id: &str, grace: Duration) -> Result<Sandbox, DriverError> {
        let tracked = self.known(call, id)?;
        let _operation = tracked.operation.lock().await;
        // Cancelled here, the keeper goes on ending it; the next call joins.
        if let (_, Observation::Running(boot)) = self.look(&tracked)? {
            let ended = platform::end(&tracked.dir, &boot, grace, END_LIMIT).await;
            if !ended.map_err(|error| DriverError::internal("stopping").because(error))? {
                return Err(DriverError::unavailable("its processes do not end"));
            }
        }
        tracked.news.notify_waiters();
        Ok(self.look(&tracked)?.0)
    }

    async fn delete(&self, call: &Call, id: &str) -> Result<(), DriverError> {
        let Some(tracked) = self.find(call, id)? else {
            return Ok(());
        };
        let _operation = tracked.operation.lock().await;
        tracked.is_being_deleted(&self.0.context.observations);
        // Cancelled here, the record is still there, and the next call goes on.
        platform::destroy(&tracked.dir, call.remaining(END_LIMIT)).await?;
        self.forget(&self.configured()?.records, &tracked)
    }

    async fn get(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        let tracked = self.known(call, id)?;
        Ok(self.look(&tracked)?.0)
    }

    async fn list(&self, call: &Call) -> Result<Inventory, DriverError> {
        let complete = self.adopt_all(&self.configured()?.records)?;
        let all: Vec<Arc<Tracked>> = self.sandboxes().values().cloned().collect();
        let ours = all
            .iter()
            .filter(|tracked| tracked.record().gateway_id == call.gateway_id());
        Ok(Inventory {
            // One that was removed meanwhile is left out.
            sandboxes: ours
                .filter_map(|tracked| Some(self.look(tracked).ok()?.0))
                .collect(),
            complete,
        })
    }

    async fn read_console(
        &self,
        call: &Call,
        request: ReadConsoleRequest,
    ) -> Result<DriverStream<Bytes>, DriverError> {
        let tracked = self.known(call, &request.sandbox_id)?;
        let path = tracked.dir.join("console.log");
        Ok(console::read(path, request.tail_bytes, request.follow))
    }
}

/// A task that panicked is a fault of ours, and answered as one.
fn finish<T>(
    ended: Result<Result<T, DriverError>, tokio::task::JoinError>,
) -> Result<T, DriverError> {
    ended.unwrap_or_else(|died| Err(DriverError::internal("a task died").because(died)))
}
