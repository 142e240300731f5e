//! The contract on a container engine: finds the sandbox, and leaves the rest to who knows it.
//!
//! Nothing here is kept only in memory, and nothing on a disk of the driver's: what there is to know
//! is on the engine, in labels and names. A driver that is killed loses nothing, and the next one
//! may run elsewhere.

mod boot;
mod life;
mod make;
mod reach;
mod recover;

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_driver_sdk::proto::{
    Capabilities, FieldViolation, FingerprintResponse, ImageSpec, PrepareImageResponse,
    ReadConsoleRequest, Sandbox, SandboxSpec, SandboxStatsResponse,
};
use cofferdam_driver_sdk::supervisor::{SupervisorCache, Token};
use cofferdam_driver_sdk::{
    Call, ComputeDriver, Context, CreateRequest, Created, DriverError, DriverStream, Inventory,
    RecoverItem, Recovered,
};
use tokio_util::sync::CancellationToken;

use crate::client::Engine;
use crate::discover::Surroundings;
use crate::driver_config::DRIVER_CONFIG_SCHEMA;
use crate::flavor::Flavor;
use crate::image::Images;
use crate::monitor::{Link, Monitor, Names};
use crate::prepare::Preparations;
use crate::sandbox::{Sandboxes, Tracked};
use crate::settings::{Config, SETTINGS_SCHEMA, Settings};
use crate::{capabilities, console, error, fingerprint, plan, prepare_image, stats};

/// How long `Configure` waits for the engine's first word.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// How long the end of the driver is held up by tidying: the next run does the rest.
const PUT_AWAY: Duration = Duration::from_secs(3);

/// A driver of one kind of engine. Cheap to clone; all clones are one.
pub struct EngineDriver<F>(Arc<State>, PhantomData<F>);

#[derive(Debug)]
struct State {
    context: Context,
    here: Surroundings,
    sandboxes: Sandboxes,
    preparations: Preparations,
    images: Arc<Images>,
    supervisors: SupervisorCache,
    /// None until the driver has been configured.
    platform: RwLock<Option<Platform>>,
}

/// What settings come to.
#[derive(Debug, Clone)]
struct Platform {
    config: Arc<Config>,
    monitor: Monitor,
}

impl<F> Clone for EngineDriver<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<F: Flavor> std::fmt::Debug for EngineDriver<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EngineDriver").field(&F::NAME).finish()
    }
}

impl<F: Flavor> EngineDriver<F> {
    /// A driver in these surroundings. Touches nothing.
    pub fn new(context: Context, here: Surroundings) -> Self {
        let state = State {
            context,
            here,
            sandboxes: Sandboxes::default(),
            preparations: Preparations::default(),
            images: Arc::default(),
            supervisors: SupervisorCache::new(),
            platform: RwLock::default(),
        };
        Self(Arc::new(state), PhantomData)
    }

    fn configured(&self) -> Option<Platform> {
        let platform = self.0.platform.read();
        platform.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn platform(&self) -> Result<Platform, DriverError> {
        // The server lets nothing through before Configure.
        self.configured()
            .ok_or_else(|| DriverError::internal("the driver is used before it is configured"))
    }

    fn engine(&self) -> Result<Engine, DriverError> {
        self.platform()?.monitor.engine()
    }

    /// The sandbox of this gateway, if there is one.
    fn find(&self, call: &Call, id: &str) -> Option<Arc<Tracked>> {
        let tracked = self.0.sandboxes.get(id)?;
        (tracked.record().gateway_id == call.gateway_id()).then_some(tracked)
    }

    fn known(&self, call: &Call, id: &str) -> Result<Arc<Tracked>, DriverError> {
        // While the engine is away, what is not known may exist all the same.
        self.engine()?;
        self.find(call, id)
            .ok_or_else(|| DriverError::sandbox_not_found(id))
    }

    /// A sandbox that has a container.
    fn container(&self, call: &Call, id: &str) -> Result<(Arc<Tracked>, String), DriverError> {
        let tracked = self.known(call, id)?;
        let container = tracked.container_id().ok_or_else(|| {
            DriverError::precondition("SANDBOX_STATE", id, "it has no container", "delete it")
        })?;
        Ok((tracked, container))
    }

    /// Looks at the engine, and forgets what is gone.
    async fn look(&self, engine: &Engine, tracked: &Arc<Tracked>) -> Result<Sandbox, DriverError> {
        let outage = self.platform()?.monitor.outage();
        let log = &self.0.context.observations;
        let seen = tracked.look(engine, log, outage).await;
        seen.map_err(error::engine)?.ok_or_else(|| {
            self.0.sandboxes.remove(tracked);
            DriverError::sandbox_not_found(&tracked.record().sandbox_id)
        })
    }
}

impl<F: Flavor> ComputeDriver for EngineDriver<F> {
    const NAME: &'static str = F::NAME;
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn description(&self) -> String {
        let title = F::TITLE;
        match self.configured().map(|platform| platform.monitor.link()) {
            Some(Link::Up(engine)) => format!(
                "containers of {title} {} at {}",
                engine.facts.version, engine.facts.address
            ),
            _ => format!("containers of {title}"),
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
        capabilities::of(platform.as_ref().map(|platform| &*platform.config))
    }

    async fn configure(&self, settings: Settings) -> Result<(), DriverError> {
        let discovered = F::discover(&settings, &self.0.here);
        let config = settings
            .resolve(discovered, F::OPEN_NETWORK)
            .map_err(DriverError::invalid)?;
        let monitor = {
            let mut platform = self
                .0
                .platform
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            match &*platform {
                Some(same) if *same.config == config => same.monitor.clone(),
                other => {
                    if let Some(other) = other {
                        other.monitor.end();
                    }
                    let config = Arc::new(config);
                    let names = Names {
                        title: F::TITLE,
                        client: F::CLIENT,
                        start_hint: F::START_HINT,
                    };
                    let sandboxes = self.0.sandboxes.clone();
                    let monitor =
                        Monitor::start(&self.0.context, Arc::clone(&config), names, sandboxes);
                    *platform = Some(Platform {
                        config,
                        monitor: monitor.clone(),
                    });
                    monitor
                }
            }
        };
        monitor.first_answer(FIRST_ANSWER).await;
        Ok(())
    }

    async fn fingerprint(&self) -> FingerprintResponse {
        match self.configured() {
            Some(platform) => fingerprint::of(
                &platform.monitor.link(),
                &platform.config,
                self.0.sandboxes.count(),
            ),
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
        let engine = platform.monitor.engine().ok();
        let facts = engine.as_ref().map(|engine| &*engine.facts);
        Ok(plan::check(spec, &platform.config, facts))
    }

    async fn create(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        // A task of its own: what was begun is finished, though the caller may have gone. Dropped
        // before it can be seen, it was not begun.
        let given_up = CancellationToken::new();
        let _asked = given_up.clone().drop_guard();
        let (driver, call) = (self.clone(), call.clone());
        let making = self
            .0
            .context
            .tasks
            .spawn(async move { driver.make(&call, request, &given_up).await });
        making
            .await
            .unwrap_or_else(|died| Err(DriverError::internal("making a sandbox").because(died)))
    }

    async fn recover(&self, call: &Call, item: RecoverItem) -> Recovered {
        self.recover_one(call, item).await
    }

    async fn start(&self, call: &Call, id: &str, token: Token) -> Result<Sandbox, DriverError> {
        let (driver, call, id) = (self.clone(), call.clone(), id.to_owned());
        let starting = self
            .0
            .context
            .tasks
            .spawn(async move { driver.start_again(&call, &id, token).await });
        starting
            .await
            .unwrap_or_else(|died| Err(DriverError::internal("starting a sandbox").because(died)))
    }

    async fn stop(&self, call: &Call, id: &str, grace: Duration) -> Result<Sandbox, DriverError> {
        self.stop_one(call, id, grace).await
    }

    async fn delete(&self, call: &Call, id: &str) -> Result<(), DriverError> {
        self.delete_one(call, id).await
    }

    async fn get(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        let tracked = self.known(call, id)?;
        self.look(&self.engine()?, &tracked).await
    }

    async fn list(&self, call: &Call) -> Result<Inventory, DriverError> {
        self.inventory(call).await
    }

    async fn prepare_image(
        &self,
        call: &Call,
        image: ImageSpec,
    ) -> Result<DriverStream<PrepareImageResponse>, DriverError> {
        let _ = call;
        Ok(prepare_image::prepare(
            self.engine()?,
            Arc::clone(&self.0.images),
            self.platform()?.config.authorised(image),
        ))
    }

    async fn read_console(
        &self,
        call: &Call,
        request: ReadConsoleRequest,
    ) -> Result<DriverStream<Bytes>, DriverError> {
        let (tracked, container) = self.container(call, &request.sandbox_id)?;
        console::read(&self.engine()?, &tracked, &container, &request).await
    }

    async fn stats(&self, call: &Call, id: &str) -> Result<SandboxStatsResponse, DriverError> {
        let (tracked, container) = self.container(call, id)?;
        let engine = self.engine()?;
        let sandbox = self.look(&engine, &tracked).await?;
        stats::of(&engine, &container, &sandbox).await
    }

    async fn pause(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        self.set_paused(call, id, true).await
    }

    async fn resume(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        self.set_paused(call, id, false).await
    }

    async fn shutdown(&self) {
        let Ok(engine) = self.engine() else { return };
        // Cancelled, some volumes stay, labelled, for the next run to remove.
        let putting_away = self.0.preparations.put_away(&engine);
        if tokio::time::timeout(PUT_AWAY, putting_away).await.is_err() {
            tracing::info!("not all unused volumes were removed in time");
        }
    }
}

/// Where a sandbox's socket is.
fn callback_directory(directory: Option<PathBuf>) -> Result<PathBuf, DriverError> {
    directory.ok_or_else(|| {
        DriverError::invalid_field("callback_directory", "a supervised sandbox needs one")
    })
}
