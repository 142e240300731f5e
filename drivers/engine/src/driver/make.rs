//! Making a sandbox.
//!
//! ```text
//!   image here? ─ yes ─► finish ─► answer: RUNNING
//!        └────── no ──► answer: CREATING;  in the background: fetch ─► finish, or FAILED with why
//!
//!   finish: volumes ─► container ─► attach, bootstrap, start ─► look
//! ```
//!
//! Until the container exists nothing is left by anything that fails; from then on what is left is
//! the container, which is labelled, listed and can be deleted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard_stubs::models::ContainerCreateBody;
use cofferdam_driver_sdk::capabilities::termination;
use cofferdam_driver_sdk::proto::{
    ImageSpec, Sandbox, SandboxSpec, SandboxState, TerminationReason,
};
use cofferdam_driver_sdk::supervisor::{SupervisorBinary, SupervisorError, Token};
use cofferdam_driver_sdk::{Call, CreateRequest, Created, DriverError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{EngineDriver, Platform, callback_directory, recover};
use crate::client::wire::CreatedJson;
use crate::client::{Engine, EngineError, Kind, SLOW};
use crate::driver_config::DriverConfig;
use crate::error;
use crate::facts::oci_architecture;
use crate::flavor::Flavor;
use crate::image::{ImageFacts, Progress};
use crate::labels::Record;
use crate::plan::{self, Place, Plan, Prepared, Stream};
use crate::prepare::{For, is_supervisor_missing};
use crate::relay;
use crate::sandbox::{Tracked, now_unix_ms};

/// How long an engine may be at work with what a driver asked that was killed.
const NAME_PATIENCE: Duration = Duration::from_secs(60);

/// Between two attempts at a name.
const NAME_RETRY: Duration = Duration::from_millis(50);

/// All that making one sandbox needs, once it is accepted.
struct Order {
    engine: Engine,
    platform: Platform,
    gateway_id: String,
    sandbox_id: String,
    spec: SandboxSpec,
    spec_digest: String,
    own: DriverConfig,
    callback: PathBuf,
    supervisor: SupervisorBinary,
    supervisor_digest: Vec<u8>,
    token: Token,
    create_time_unix_ms: u64,
}

impl Order {
    fn image(&self) -> ImageSpec {
        let image = self.spec.image.clone().unwrap_or_default();
        self.platform.config.authorised(image)
    }
}

impl<F: Flavor> EngineDriver<F> {
    /// The sandbox of this request: the one that exists, or a new one.
    pub(super) async fn make(
        &self,
        call: &Call,
        request: CreateRequest,
        given_up: &CancellationToken,
    ) -> Result<Created, DriverError> {
        let platform = self.platform()?;
        let engine = platform.monitor.engine()?;
        let record = Record {
            gateway_id: call.gateway_id().to_owned(),
            sandbox_id: request.sandbox_id.clone(),
            spec_digest: request.digest.to_hex(),
            create_time_unix_ms: now_unix_ms(),
            expire_time_unix_ms: request.spec.expire_time_unix_ms,
            ..Record::default()
        };
        let sandboxes = &self.0.sandboxes;
        sandboxes.forget_delete(call.gateway_id(), &request.sandbox_id);
        let tracked = loop {
            if let Some(existing) = self.existing(call, &engine, &request).await? {
                return Ok(existing);
            }
            // What was left of an earlier attempt may have been reported as gone.
            let log = &self.0.context.observations;
            log.expect(call.gateway_id(), &request.sandbox_id);
            let (tracked, is_new) = sandboxes.add(Tracked::new(record.clone()));
            if is_new {
                break tracked;
            }
            if tracked.record().gateway_id != call.gateway_id() {
                return Err(DriverError::sandbox_exists(&request.sandbox_id));
            }
            // Found on the engine just now, which went on with what a killed driver had asked.
            sleep(NAME_RETRY).await;
        };
        // From here on whoever deletes it finds it; until here they did not.
        if given_up.is_cancelled() {
            self.drop_unmade(&tracked);
            return Err(DriverError::aborted("nobody waits for it any more"));
        }
        let create_time_unix_ms = record.create_time_unix_ms;
        let order = self.order(call, engine, platform, request, create_time_unix_ms);
        match order.await {
            Ok(order) => self.begin(order, tracked).await,
            Err(refused) => {
                self.drop_unmade(&tracked);
                Err(refused)
            }
        }
    }

    /// An earlier create of this id: its sandbox if it is one, nothing if what it left was removed.
    async fn existing(
        &self,
        call: &Call,
        engine: &Engine,
        request: &CreateRequest,
    ) -> Result<Option<Created>, DriverError> {
        let id = &request.sandbox_id;
        let Some(tracked) = self.find(call, id) else {
            return Ok(None);
        };
        request.digest.check(&tracked.record().spec_digest, id)?;
        if tracked.container_id().is_none() {
            // Its image is being fetched, or could not be.
            let log = &self.0.context.observations;
            let sandbox = tracked.report(log, None, None);
            return match sandbox {
                Some(sandbox) => recover::created(engine, "", sandbox).map(Some),
                None => Ok(None),
            };
        }
        // An earlier call may have gone while its work goes on: this waits for it.
        let operation = tracked.operation.lock().await;
        match self.look(engine, &tracked).await {
            Ok(sandbox) if sandbox.platform_id.is_empty() => Ok(None),
            // Half-made, and not by us: a driver was killed meanwhile. Made anew.
            Ok(sandbox) if has_never_begun(&sandbox) => {
                self.take_apart(engine, &tracked, SLOW).await?;
                // To those who watch it goes on being made.
                tracked.give_way();
                drop(operation);
                Ok(None)
            }
            Ok(sandbox) => {
                // The driver that began it may have been killed, and its relay with it.
                if relay::is_for(&tracked.record()) {
                    let callback = callback_directory(request.callback_directory.clone())?;
                    relay::resume(&self.0.context, engine, &tracked, &callback);
                }
                recover::created(engine, &sandbox.platform_id.clone(), sandbox).map(Some)
            }
            Err(gone) if *gone.kind() == recover::not_found(id) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn order(
        &self,
        call: &Call,
        engine: Engine,
        platform: Platform,
        request: CreateRequest,
        create_time_unix_ms: u64,
    ) -> Result<Order, DriverError> {
        let found = plan::check(&request.spec, &platform.config, Some(&engine.facts));
        if !found.is_empty() {
            return Err(DriverError::invalid(found));
        }
        let own = plan::driver_config(&request.spec).map_err(DriverError::invalid)?;
        let named = call.gateway.supervisor.clone();
        let named = named.ok_or(SupervisorError::Missing)?;
        fits(&named.architecture, &engine)?;
        let digest = named.sha256.to_vec();
        let (driver, instead) = (self.clone(), platform.config.supervisor_path.clone());
        let opening = tokio::task::spawn_blocking(move || {
            driver.0.supervisors.open(Some(&named), instead.as_deref())
        });
        let supervisor = opening
            .await
            .map_err(|died| DriverError::internal("reading the supervisor").because(died))??;
        Ok(Order {
            gateway_id: call.gateway_id().to_owned(),
            sandbox_id: request.sandbox_id,
            spec_digest: request.digest.to_hex(),
            spec: request.spec,
            own,
            callback: callback_directory(request.callback_directory)?,
            supervisor,
            supervisor_digest: digest,
            token: request.token,
            create_time_unix_ms,
            engine,
            platform,
        })
    }

    async fn begin(&self, order: Order, tracked: Arc<Tracked>) -> Result<Created, DriverError> {
        let image = order.image();
        let engine = order.engine.clone();
        match self.0.images.find(&order.engine, &image).await {
            Ok(Some(image)) => {
                let made = self.finish(order, &tracked, &image).await;
                if made.is_err() && tracked.container_id().is_none() {
                    self.drop_unmade(&tracked);
                }
                made?;
                let sandbox = self.look(&engine, &tracked).await?;
                recover::created(&engine, &sandbox.platform_id.clone(), sandbox)
            }
            Ok(None) => {
                tracked.set_progress(&Progress::new(image_name(&image)));
                let log = &self.0.context.observations;
                let sandbox = tracked.report(log, None, None);
                let driver = self.clone();
                self.0
                    .context
                    .tasks
                    .spawn(async move { driver.fetch_and_finish(order, tracked).await });
                let sandbox = sandbox.ok_or_else(|| DriverError::aborted("it was deleted"))?;
                recover::created(&engine, "", sandbox)
            }
            Err(error) => {
                self.drop_unmade(&tracked);
                Err(error.into())
            }
        }
    }

    /// In the background: whatever happens is reported.
    async fn fetch_and_finish(&self, order: Order, tracked: Arc<Tracked>) {
        let log = self.0.context.observations.clone();
        let image = order.image();
        let engine = order.engine.clone();
        let fetching = self.0.images.fetch(&engine, &image, |progress| {
            tracked.set_progress(progress);
            tracked.report(&log, None, None);
        });
        let fetched = tokio::select! {
            fetched = fetching => fetched,
            // Deleted: whoever did it has reported.
            () = tracked.cancel.cancelled() => return,
            () = self.0.context.shutdown.cancelled() => return,
        };
        let failed = match fetched {
            Ok(image) => match self.finish(order, &tracked, &image).await {
                Ok(()) => None,
                Err(error) => Some((TerminationReason::PlatformError, error.chain())),
            },
            Err(error) => {
                let (reason, text) = (error.reason(), error.to_string());
                Some((reason, text))
            }
        };
        if let Some((reason, text)) = failed {
            tracing::info!(
                sandbox.id = tracked.record().sandbox_id,
                reason = text,
                "not made"
            );
            tracked.fail(termination(reason, text, now_unix_ms()));
            tracked.report(&log, None, None);
        } else if let Err(error) = self.look(&engine, &tracked).await {
            tracing::debug!(error = error.chain(), "the new sandbox was not looked at");
        }
    }

    /// Makes and starts the container. What failed leaves nothing.
    async fn finish(
        &self,
        order: Order,
        tracked: &Arc<Tracked>,
        image: &ImageFacts,
    ) -> Result<(), DriverError> {
        let _operation = tracked.operation.lock().await;
        if tracked.cancel.is_cancelled() {
            return Err(DriverError::aborted("the sandbox was deleted"));
        }
        let preparations = &self.0.preparations;
        let in_use = preparations.in_use().await;
        preparations.clean(&order.engine, &order.gateway_id).await;
        let made = match self.put_together(&order, tracked, image).await {
            Err(error) if is_supervisor_missing(&error) => {
                // Somebody has pruned the engine's volumes.
                self.0.preparations.forget_supervisors().await;
                self.put_together(&order, tracked, image).await
            }
            made => made,
        };
        drop(in_use);
        tracked.is_made();
        made.map_err(error::engine)?;
        self.replenish(&order, image);
        Ok(())
    }

    async fn put_together(
        &self,
        order: &Order,
        tracked: &Arc<Tracked>,
        image: &ImageFacts,
    ) -> Result<(), EngineError> {
        let whom = For {
            engine: &order.engine,
            gateway_id: &order.gateway_id,
            image_id: &image.id,
        };
        let preparations = &self.0.preparations;
        let supervisor = preparations
            .supervisor(whom, &order.supervisor_digest, &order.supervisor)
            .await?;
        let user = plan::user(&order.spec, &order.own, image);
        let workspace = match plan::wants_volume(&order.own) {
            true => {
                let ahead = order.platform.config.spare_workspaces;
                preparations
                    .workspace(whom, user, F::VOLUMES_FOLLOW_USER, ahead)
                    .await?
            }
            false => String::new(),
        };
        let stream = super::reach::stream::<F>(
            &order.engine,
            &order.platform.config,
            &self.0.here,
            &order.callback,
            &supervisor,
        )
        .await?;
        let plan = self.planned(order, image, stream, &supervisor, &workspace);
        let made = self.start_new(order, tracked, &plan).await;
        if made.is_err() {
            self.leave_nothing(order, tracked, &workspace).await;
        }
        made
    }

    fn planned(
        &self,
        order: &Order,
        image: &ImageFacts,
        stream: Stream,
        supervisor_volume: &str,
        workspace_volume: &str,
    ) -> Plan {
        let place = Place {
            config: &order.platform.config,
            facts: &order.engine.facts,
            log_driver: F::LOG_DRIVER,
        };
        let prepared = Prepared {
            gateway_id: &order.gateway_id,
            sandbox_id: &order.sandbox_id,
            spec_digest: &order.spec_digest,
            create_time_unix_ms: order.create_time_unix_ms,
            stream,
            callback: &order.callback.to_string_lossy(),
            supervisor_volume,
            workspace_volume,
        };
        plan::plan(&order.spec, &order.own, image, place, &prepared)
    }

    async fn start_new(
        &self,
        order: &Order,
        tracked: &Arc<Tracked>,
        plan: &Plan,
    ) -> Result<(), EngineError> {
        let engine = &order.engine;
        let platform = order
            .spec
            .image
            .as_ref()
            .map(|image| image.platform.as_str());
        let platform = platform.filter(|platform| !platform.is_empty());
        tracked.set_record(plan.record.clone());
        let name = tracked.name().to_string();
        let made = create_named(engine, &name, platform, &plan.body).await?;
        for warning in &made.warnings {
            tracing::info!(sandbox.id = order.sandbox_id, warning, "the engine warns");
        }
        tracked.set_container(Some(made.id.clone()));
        self.boot(
            engine,
            tracked,
            &made.id,
            order.token.clone(),
            &order.callback,
        )
        .await
    }

    /// What is left of something that failed is removed; what cannot be is listed.
    async fn leave_nothing(&self, order: &Order, tracked: &Arc<Tracked>, workspace: &str) {
        let engine = &order.engine;
        // Also by name: the answer to the create may have been lost.
        let name = tracked.name().to_string();
        let id = tracked.container_id().unwrap_or(name);
        let removed = engine.remove_container(&id, SLOW).await;
        match removed {
            Ok(()) => {
                tracked.set_container(None);
                if let Err(error) = engine.remove_volume(workspace).await {
                    tracing::warn!(error = %error.chain(), "a workspace was left");
                }
            }
            Err(error) => tracing::warn!(error = %error.chain(), "a container was left"),
        }
    }

    fn drop_unmade(&self, tracked: &Arc<Tracked>) {
        self.0.sandboxes.remove(tracked);
        tracked.is_gone(&self.0.context.observations);
    }

    /// In the background, after the caller has its sandbox.
    fn replenish(&self, order: &Order, image: &ImageFacts) {
        if F::VOLUMES_FOLLOW_USER || !plan::wants_volume(&order.own) {
            return;
        }
        let user = plan::user(&order.spec, &order.own, image);
        let ahead = order.platform.config.spare_workspaces;
        let (driver, engine) = (self.clone(), order.engine.clone());
        let (gateway_id, image_id) = (order.gateway_id.clone(), image.id.clone());
        self.0.context.tasks.spawn(async move {
            let whom = For {
                engine: &engine,
                gateway_id: &gateway_id,
                image_id: &image_id,
            };
            let preparations = &driver.0.preparations;
            // Not cut short: an engine goes on with what it was asked.
            let _in_use = preparations.in_use().await;
            if !driver.0.context.shutdown.is_cancelled() {
                preparations.replenish(whom, user, ahead).await;
            }
        });
    }
}

/// It has a container, and nothing has ever run in it.
fn has_never_begun(sandbox: &Sandbox) -> bool {
    let state = sandbox.state();
    state == SandboxState::Creating
        || (state == SandboxState::FailedState && sandbox.start_time_unix_ms == 0)
}

/// A driver that was killed may have asked for the same: the engine goes on with that, and gives away
/// the name some time before there is a container to be removed.
async fn create_named(
    engine: &Engine,
    name: &str,
    platform: Option<&str>,
    body: &ContainerCreateBody,
) -> Result<CreatedJson, EngineError> {
    let end = Instant::now() + NAME_PATIENCE;
    loop {
        match engine.create_container(name, platform, body).await {
            Err(error) if error.kind == Kind::Conflict && Instant::now() < end => {
                tracing::info!(container = name, "its name is taken: made anew");
                engine.remove_container(name, SLOW).await?;
                sleep(NAME_RETRY).await;
            }
            made => return made,
        }
    }
}

fn image_name(image: &ImageSpec) -> &str {
    use cofferdam_driver_sdk::proto::image_spec::Source;
    match &image.source {
        Some(Source::Reference(name) | Source::Archive(name)) => name,
        Some(Source::Host(_)) | None => "",
    }
}

/// The gateway's supervisor is for the gateway's kind of machine.
fn fits(architecture: &str, engine: &Engine) -> Result<(), DriverError> {
    let (ours, theirs) = (oci_architecture(architecture), &engine.facts.architecture);
    if architecture.is_empty() || theirs.is_empty() || ours == theirs {
        return Ok(());
    }
    Err(DriverError::precondition(
        "SUPERVISOR",
        "supervisor",
        format!("the engine's host is {theirs}, and the gateway's supervisor is for {ours}"),
        format!("run a gateway of the architecture {theirs}, or use another engine"),
    ))
}
