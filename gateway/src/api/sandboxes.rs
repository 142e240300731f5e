//! What callers do with sandboxes.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::gateway::v1 as wire;
use tokio_stream::StreamExt;
use tonic::{Code, Response, Status};

use super::caller::Caller;
use super::files::Out;
use super::intake::{cannot, idempotency, not_ready};
use super::service::{Answer, STOP_GRACE_MAX_MS, page_size};
use super::status::ApiError;
use super::{Api, convert};
use crate::driver::{Capabilities, Driver, DriverState, DriverView};
use crate::model::SandboxState;
use crate::sandbox::admission::{ExecutionNeeds, Problems};
use crate::sandbox::{Ended, Sandbox, SandboxView, WishError, is_session_lost, is_settled};

const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// How long a caller waits for a driver that has gone: one that is restarted is back much sooner.
const AWAY_PATIENCE: Duration = Duration::from_secs(5);
/// What a driver may take for a stop beyond the grace of what runs.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

impl Api {
    pub(super) async fn create_sandbox(
        &self,
        caller: Caller,
        request: wire::CreateSandboxRequest,
    ) -> Answer<wire::CreateSandboxResponse> {
        let wanted = request
            .sandbox
            .ok_or_else(|| ApiError::field("sandbox", "is missing"))?;
        let key = idempotency(caller, &request.idempotency_key, &wanted)?;
        let sandbox = match self.known(key.as_ref()).await? {
            Some(id) => self.sandbox(caller, &id)?,
            None => {
                self.takes_work()?;
                let needs = ExecutionNeeds::default();
                let intake = &self.0.intake;
                let new = intake
                    .sandbox(caller, wanted, needs, Problems::default())
                    .await?;
                let sandboxes = &self.0.sandboxes;
                sandboxes
                    .create(new, key.as_ref())
                    .await
                    .map_err(ApiError::from)?
            }
        };
        if request.wait {
            let id = sandbox.id().to_string();
            let view = sandbox
                .wait_for(|view| {
                    view.facts.state == SandboxState::Ready
                        || is_settled(view.facts.state)
                        || is_session_lost(&view.facts)
                })
                .await
                .map_err(ended(&id))?;
            if view.facts.state != SandboxState::Ready {
                return Err(failed(&view).into());
            }
        }
        Ok(Response::new(wire::CreateSandboxResponse {
            sandbox: Some(convert::sandbox(&sandbox)),
        }))
    }

    pub(super) async fn get_sandbox(
        &self,
        caller: Caller,
        request: wire::GetSandboxRequest,
    ) -> Answer<wire::GetSandboxResponse> {
        let sandbox = self.sandbox(caller, &request.sandbox)?;
        Ok(Response::new(wire::GetSandboxResponse {
            sandbox: Some(convert::sandbox(&sandbox)),
        }))
    }

    pub(super) async fn list_sandboxes(
        &self,
        caller: Caller,
        request: wire::ListSandboxesRequest,
    ) -> Answer<wire::ListSandboxesResponse> {
        let page = page_size(request.page_size);
        let mut found: Vec<Sandbox> = self.0.sandboxes.list();
        found.retain(|sandbox| {
            let facts = &sandbox.view().facts;
            caller.sees(facts.owner_uid)
                && sandbox.id().as_str() > request.page_token.as_str()
                && (request.driver.is_empty() || facts.driver.as_str() == request.driver)
                && request
                    .labels
                    .iter()
                    .all(|(key, value)| facts.spec.labels.get(key) == Some(value))
        });
        let more = found.len() > page;
        found.truncate(page);
        let next_page_token = match found.last() {
            Some(last) if more => last.id().to_string(),
            _ => String::new(),
        };
        Ok(Response::new(wire::ListSandboxesResponse {
            sandboxes: found.iter().map(convert::sandbox).collect(),
            next_page_token,
        }))
    }

    pub(super) async fn watch_sandbox(
        &self,
        caller: Caller,
        request: wire::WatchSandboxRequest,
    ) -> Answer<Out<wire::WatchSandboxResponse>> {
        let sandbox = self.sandbox(caller, &request.sandbox)?;
        let mut view = sandbox.watch();
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            loop {
                let state = view.borrow_and_update().facts.state;
                let sandbox = Some(convert::sandbox(&sandbox));
                yield wire::WatchSandboxResponse { sandbox };
                if state == SandboxState::Deleted || view.changed().await.is_err() {
                    return;
                }
            }
        })))
    }

    pub(super) async fn stop_sandbox(
        &self,
        caller: Caller,
        request: wire::StopSandboxRequest,
    ) -> Answer<wire::StopSandboxResponse> {
        let name = &request.sandbox;
        let sandbox = self.sandbox(caller, name)?;
        let state = sandbox.view().facts.state;
        if matches!(state, SandboxState::Failed | SandboxState::Deleting) {
            return Err(failed(&sandbox.view()).into());
        }
        self.needs(&sandbox, "stop and start", |can| can.stop_start)?;
        let grace = match request.grace_ms {
            0 => STOP_GRACE_DEFAULT,
            asked => Duration::from_millis(asked.min(STOP_GRACE_MAX_MS)),
        };
        sandbox.stop(grace).await.map_err(refused(name))?;
        let stopped = sandbox.wait_for(|view| is_settled(view.facts.state));
        let stopped = tokio::time::timeout(grace + STOP_PATIENCE, stopped);
        let done = self.while_reached(&sandbox, stopped).await?;
        let done = done
            .map_err(|_| unconfirmed(&sandbox))?
            .map_err(ended(name))?;
        if done.facts.state != SandboxState::Stopped {
            return Err(failed(&done).into());
        }
        Ok(Response::new(wire::StopSandboxResponse {
            sandbox: Some(convert::sandbox(&sandbox)),
        }))
    }

    pub(super) async fn start_sandbox(
        &self,
        caller: Caller,
        request: wire::StartSandboxRequest,
    ) -> Answer<wire::StartSandboxResponse> {
        self.takes_work()?;
        let name = &request.sandbox;
        let sandbox = self.sandbox(caller, name)?;
        let view = sandbox.view();
        match view.facts.state {
            SandboxState::Failed | SandboxState::Deleting | SandboxState::Stopping => {
                return Err(failed(&view).into());
            }
            _ => {}
        }
        self.needs(&sandbox, "stop and start", |can| can.stop_start)?;
        let before = view.facts.state_time;
        sandbox.start().await.map_err(refused(name))?;
        let was_stopped = view.facts.state == SandboxState::Stopped;
        let started = sandbox.wait_for(|view| {
            let facts = &view.facts;
            let answered =
                !was_stopped || facts.state_time > before || facts.state != SandboxState::Stopped;
            facts.state == SandboxState::Ready
                || is_session_lost(facts)
                || (answered && is_settled(facts.state))
        });
        let done = self.while_reached(&sandbox, started).await?;
        let done = done.map_err(ended(name))?;
        if done.facts.state != SandboxState::Ready {
            return Err(failed(&done).into());
        }
        Ok(Response::new(wire::StartSandboxResponse {
            sandbox: Some(convert::sandbox(&sandbox)),
        }))
    }

    pub(super) async fn delete_sandbox(
        &self,
        caller: Caller,
        request: wire::DeleteSandboxRequest,
    ) -> Answer<wire::DeleteSandboxResponse> {
        let sandbox = match self.sandbox(caller, &request.sandbox) {
            Err(_) if request.allow_missing && !request.sandbox.is_empty() => {
                return Ok(Response::new(wire::DeleteSandboxResponse {}));
            }
            found => found?,
        };
        let message = "deleted by request".to_owned();
        match sandbox.delete("DELETED_BY_REQUEST", message).await {
            Ok(()) => {}
            // By somebody else.
            Err(WishError::Ended(_)) => return Ok(Response::new(wire::DeleteSandboxResponse {})),
            Err(WishError::Store(error)) => return Err(ApiError::from(error).into()),
        }
        if request.wait {
            let gone = |view: &SandboxView| view.facts.state == SandboxState::Deleted;
            // Ended before we looked: that is what was waited for.
            let _gone = self.while_reached(&sandbox, sandbox.wait_for(gone)).await?;
        }
        Ok(Response::new(wire::DeleteSandboxResponse {}))
    }

    pub(super) async fn read_console(
        &self,
        caller: Caller,
        request: wire::ReadConsoleRequest,
    ) -> Answer<Out<wire::ReadConsoleResponse>> {
        let sandbox = self.sandbox(caller, &request.sandbox)?;
        let driver = self.needs(&sandbox, "console", |can| can.console)?;
        let stream = driver
            .console(sandbox.id(), request.tail_bytes, request.follow)
            .await
            .map_err(ApiError::from)?;
        let stream = stream.map(|piece| {
            let data = piece.map_err(|error| Status::from(ApiError::from(error)))?;
            Ok(wire::ReadConsoleResponse { data })
        });
        Ok(Response::new(Box::pin(stream)))
    }

    pub(super) async fn sandbox_stats(
        &self,
        caller: Caller,
        request: wire::SandboxStatsRequest,
    ) -> Answer<wire::SandboxStatsResponse> {
        let sandbox = self.sandbox(caller, &request.sandbox)?;
        let driver = self.needs(&sandbox, "stats", |can| can.stats)?;
        let stats = driver.stats(sandbox.id()).await.map_err(ApiError::from)?;
        Ok(Response::new(wire::SandboxStatsResponse {
            stats: Some(stats),
        }))
    }

    pub(super) fn sandbox(&self, caller: Caller, name: &str) -> Result<Sandbox, ApiError> {
        caller.sandbox(&self.0.sandboxes, name)
    }

    fn driver_of(&self, sandbox: &Sandbox) -> Result<Driver, ApiError> {
        let name = sandbox.view().facts.driver.clone();
        self.0.drivers.get(&name).ok_or_else(|| {
            ApiError::new(
                Code::FailedPrecondition,
                "UNKNOWN_DRIVER",
                format!("driver \"{name}\" is not configured in this gateway (any more)"),
            )
        })
    }

    /// Waits for what a driver has to do, but not for a driver that stays away: what was asked for is
    /// stored, and goes on without its caller.
    async fn while_reached<T>(
        &self,
        sandbox: &Sandbox,
        done: impl Future<Output = T>,
    ) -> Result<T, ApiError> {
        let away = async {
            let driver = match self.driver_of(sandbox) {
                Ok(driver) => driver,
                Err(error) => return error,
            };
            let mut changes = driver.changes();
            let is_away = |view: &Arc<DriverView>| view.state != DriverState::Connected;
            loop {
                if changes.wait_for(is_away).await.is_err() {
                    // The gateway is on its way out, and the sandbox's task with it.
                    return std::future::pending().await;
                }
                let back = changes.wait_for(|view| !is_away(view));
                if tokio::time::timeout(AWAY_PATIENCE, back).await.is_err() {
                    return awaited(&driver, sandbox);
                }
            }
        };
        tokio::select! {
            biased;
            done = done => Ok(done),
            error = away => Err(error),
        }
    }

    fn needs(
        &self,
        sandbox: &Sandbox,
        what: &str,
        can: impl Fn(&Capabilities) -> bool,
    ) -> Result<Driver, ApiError> {
        let driver = self.driver_of(sandbox)?;
        let view = driver.view();
        if view.capabilities.as_ref().is_none_or(&can) {
            return Ok(driver);
        }
        Err(cannot(&driver, what))
    }
}

/// The driver answers, but does not say "stopped".
fn unconfirmed(sandbox: &Sandbox) -> ApiError {
    let (id, driver) = (sandbox.id(), sandbox.view().facts.driver.clone());
    ApiError::new(
        Code::DeadlineExceeded,
        "STOP_UNCONFIRMED",
        format!(
            "driver \"{driver}\" does not confirm that {id} is stopped; it is asked until it does"
        ),
    )
    .hint(format!(
        "`cofferdam inspect {id}` shows what it says; `cofferdam rm -f {id}` removes it"
    ))
}

/// It is stored, and waits for its driver.
fn awaited(driver: &Driver, sandbox: &Sandbox) -> ApiError {
    let view = driver.view();
    let (error, fix) = view.trouble().unwrap_or_default();
    let message = format!(
        "driver \"{}\" is away; this is noted, and done for {} when it is back: {error}",
        driver.name(),
        sandbox.id()
    );
    ApiError::new(Code::Unavailable, "DRIVER_UNAVAILABLE", message).hint(fix)
}

/// The task is gone: so is the sandbox, or the gateway is on its way out.
fn ended(name: &str) -> impl Fn(Ended) -> ApiError + '_ {
    move |_| ApiError::no_sandbox(name)
}

/// Nothing was done.
fn refused(name: &str) -> impl Fn(WishError) -> ApiError + '_ {
    move |error| match error {
        WishError::Ended(_) => ApiError::no_sandbox(name),
        WishError::Store(error) => error.into(),
    }
}

fn failed(view: &SandboxView) -> ApiError {
    not_ready(&view.facts)
}
