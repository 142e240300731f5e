//! The service: each method decodes, authorises, delegates, encodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cofferdam_proto::gateway::v1 as wire;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming};
use wire::gateway_server::Gateway;

use super::caller::Caller;
use super::execute::{self, EventStream};
use super::files::{self, Out};
use super::intake::{idempotency, not_ready};
use super::status::ApiError;
use super::{Api, convert};
use crate::driver::{Capabilities, Driver};
use crate::execution::NewExecution;
use crate::model::{ExecutionFacts, ExecutionId, SandboxState};
use crate::sandbox::admission::{ExecutionNeeds, Problems};
use crate::sandbox::{Ended, Sandbox, SandboxView};
use crate::store::{ExecutionFilter, IdempotencyKey};

type Answer<T> = Result<Response<T>, Status>;

const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);
const STOP_GRACE_MAX_MS: u64 = 10 * 60 * 1_000;
const PAGE_DEFAULT: u32 = 500;
const PAGE_MAX: u32 = 1_000;
const WAIT_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

impl Api {
    fn takes_work(&self) -> Result<(), ApiError> {
        match self.0.draining.load(Ordering::Relaxed) {
            true => Err(ApiError::draining()),
            false => Ok(()),
        }
    }

    pub(super) async fn new_execution(
        &self,
        caller: Caller,
        request: wire::ExecutionRequest,
        attached: bool,
    ) -> Result<NewExecution, ApiError> {
        self.takes_work()?;
        let intake = &self.0.intake;
        intake
            .execution(caller, request, attached, &self.0.sandboxes)
            .await
    }

    /// What the same request with the same key has started before.
    pub(super) async fn known_execution(
        &self,
        caller: Caller,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Arc<ExecutionFacts>>, ApiError> {
        let Some(object_id) = self.known(key).await? else {
            return Ok(None);
        };
        let (_, facts) = caller.execution(&self.0.executions, &object_id).await?;
        Ok(Some(facts))
    }

    async fn known(&self, key: Option<&IdempotencyKey>) -> Result<Option<String>, ApiError> {
        let Some(key) = key else {
            return Ok(None);
        };
        let used = self
            .0
            .store
            .find_idempotent(key.caller_uid, &key.key)
            .await?;
        match used {
            None => Ok(None),
            Some(used) if used.digest == key.digest => Ok(Some(used.object_id)),
            Some(_) => Err(ApiError::new(
                Code::AlreadyExists,
                "IDEMPOTENCY_KEY_REUSED",
                "this idempotency key was used for another request",
            )
            .hint("use a new key for a new request")),
        }
    }

    fn sandbox(&self, caller: Caller, name: &str) -> Result<Sandbox, ApiError> {
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
        let message = format!(
            "capability_mismatch: driver \"{}\" cannot do: {what}",
            driver.name()
        );
        Err(ApiError::new(
            Code::InvalidArgument,
            "CAPABILITY_MISMATCH",
            message,
        ))
    }
}

/// The task is gone: so is the sandbox, or the gateway is on its way out.
fn ended(name: &str) -> impl Fn(Ended) -> ApiError + '_ {
    move |_| ApiError::no_sandbox(name)
}

fn failed(view: &SandboxView) -> ApiError {
    not_ready(&view.facts)
}

#[tonic::async_trait]
impl Gateway for Api {
    type WatchSandboxStream = Out<wire::WatchSandboxResponse>;
    type ExecuteStream = EventStream;
    type ReadOutputStream = EventStream;
    type ReadFileStream = Out<wire::ReadFileResponse>;
    type ReadArchiveStream = Out<wire::ArchiveChunk>;
    type ForwardStream = Out<wire::ForwardResponse>;
    type ReadConsoleStream = Out<wire::ReadConsoleResponse>;

    async fn get_info(
        &self,
        request: Request<wire::GetInfoRequest>,
    ) -> Answer<wire::GetInfoResponse> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(wire::GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            gateway_id: self.0.gateway_id.clone(),
            ready: self.0.ready.load(Ordering::Relaxed),
            draining: self.0.draining.load(Ordering::Relaxed),
            default_driver: self.0.default_driver.clone(),
            start_time_unix_ms: self.0.start_time.0,
            caller_uid: caller.uid,
        }))
    }

    async fn create_sandbox(
        &self,
        request: Request<wire::CreateSandboxRequest>,
    ) -> Answer<wire::CreateSandboxResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
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
                        || crate::sandbox::is_settled(view.facts.state)
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

    async fn get_sandbox(
        &self,
        request: Request<wire::GetSandboxRequest>,
    ) -> Answer<wire::GetSandboxResponse> {
        let caller = Caller::of(&request)?;
        let sandbox = self.sandbox(caller, &request.get_ref().sandbox)?;
        Ok(Response::new(wire::GetSandboxResponse {
            sandbox: Some(convert::sandbox(&sandbox)),
        }))
    }

    async fn list_sandboxes(
        &self,
        request: Request<wire::ListSandboxesRequest>,
    ) -> Answer<wire::ListSandboxesResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
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

    async fn watch_sandbox(
        &self,
        request: Request<wire::WatchSandboxRequest>,
    ) -> Answer<Self::WatchSandboxStream> {
        let caller = Caller::of(&request)?;
        let sandbox = self.sandbox(caller, &request.get_ref().sandbox)?;
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

    async fn stop_sandbox(
        &self,
        request: Request<wire::StopSandboxRequest>,
    ) -> Answer<wire::StopSandboxResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
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
        sandbox.stop(grace).await.map_err(ended(name))?;
        let done = sandbox
            .wait_for(|view| crate::sandbox::is_settled(view.facts.state))
            .await
            .map_err(ended(name))?;
        if done.facts.state != SandboxState::Stopped {
            return Err(failed(&done).into());
        }
        Ok(Response::new(wire::StopSandboxResponse {
            sandbox: Some(convert::sandbox(&sandbox)),
        }))
    }

    async fn start_sandbox(
        &self,
        request: Request<wire::StartSandboxRequest>,
    ) -> Answer<wire::StartSandboxResponse> {
        let caller = Caller::of(&request)?;
        self.takes_work()?;
        let name = &request.get_ref().sandbox;
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
        sandbox.start().await.map_err(ended(name))?;
        let was_stopped = view.facts.state == SandboxState::Stopped;
        let done = sandbox
            .wait_for(|view| {
                let facts = &view.facts;
                let answered = !was_stopped
                    || facts.state_time > before
                    || facts.state != SandboxState::Stopped;
                facts.state == SandboxState::Ready
                    || (answered && crate::sandbox::is_settled(facts.state))
            })
            .await
            .map_err(ended(name))?;
        if done.facts.state != SandboxState::Ready {
            return Err(failed(&done).into());
        }
        Ok(Response::new(wire::StartSandboxResponse {
            sandbox: Some(convert::sandbox(&sandbox)),
        }))
    }

    async fn delete_sandbox(
        &self,
        request: Request<wire::DeleteSandboxRequest>,
    ) -> Answer<wire::DeleteSandboxResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let sandbox = match self.sandbox(caller, &request.sandbox) {
            Err(_) if request.allow_missing && !request.sandbox.is_empty() => {
                return Ok(Response::new(wire::DeleteSandboxResponse {}));
            }
            found => found?,
        };
        let message = "deleted by request".to_owned();
        if sandbox.delete("DELETED_BY_REQUEST", message).await.is_ok() && request.wait {
            let gone = |view: &SandboxView| view.facts.state == SandboxState::Deleted;
            // Ended before we looked: that is what was waited for.
            let _gone = sandbox.wait_for(gone).await;
        }
        Ok(Response::new(wire::DeleteSandboxResponse {}))
    }

    async fn execute(
        &self,
        request: Request<Streaming<wire::ExecuteRequest>>,
    ) -> Answer<Self::ExecuteStream> {
        let caller = Caller::of(&request)?;
        let stream = execute::execute(self.clone(), caller, request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn create_execution(
        &self,
        request: Request<wire::CreateExecutionRequest>,
    ) -> Answer<wire::CreateExecutionResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let wanted = request
            .execution
            .ok_or_else(|| ApiError::field("execution", "is missing"))?;
        let key = idempotency(caller, &request.idempotency_key, &wanted)?;
        if let Some(facts) = self.known_execution(caller, key.as_ref()).await? {
            return Ok(Response::new(wire::CreateExecutionResponse {
                execution: Some(convert::execution(&facts)),
            }));
        }
        let new = self.new_execution(caller, wanted, false).await?;
        let (execution, _) = self
            .0
            .executions
            .start(new, key.as_ref())
            .await
            .map_err(ApiError::from)?;
        Ok(Response::new(wire::CreateExecutionResponse {
            execution: Some(convert::execution(&execution.facts())),
        }))
    }

    async fn get_execution(
        &self,
        request: Request<wire::GetExecutionRequest>,
    ) -> Answer<wire::GetExecutionResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, mut facts) = caller
            .execution(&self.0.executions, &request.execution_id)
            .await?;
        if request.wait_ms > 0
            && let Some(execution) = self.0.executions.find(&id)
        {
            let patience = Duration::from_millis(request.wait_ms.min(WAIT_MAX_MS));
            facts = match tokio::time::timeout(patience, execution.ended()).await {
                Ok(facts) => facts,
                Err(_) => execution.facts(),
            };
        }
        Ok(Response::new(wire::GetExecutionResponse {
            execution: Some(convert::execution(&facts)),
        }))
    }

    async fn list_executions(
        &self,
        request: Request<wire::ListExecutionsRequest>,
    ) -> Answer<wire::ListExecutionsResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let sandbox = match request.sandbox.as_str() {
            "" => None,
            // One that is gone is known by its id only.
            name => Some(match self.sandbox(caller, name) {
                Ok(sandbox) => sandbox.id().clone(),
                Err(error) => crate::model::SandboxId::parse(name).map_err(|_| error)?,
            }),
        };
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(
                ExecutionId::parse(token)
                    .map_err(|_| ApiError::field("page_token", "is not from an earlier page"))?,
            ),
        };
        let filter = ExecutionFilter {
            sandbox,
            running_only: request.running_only,
            owner_uid: caller.owner_filter(),
        };
        let page = self
            .0
            .store
            .executions(&filter, page_size(request.page_size), before.as_ref())
            .await
            .map_err(ApiError::from)?;
        Ok(Response::new(wire::ListExecutionsResponse {
            executions: page
                .executions
                .iter()
                .map(|stored| match self.0.executions.find(&stored.id) {
                    // The runner knows how much there is by now.
                    Some(live) => convert::execution(&live.facts()),
                    None => convert::execution(stored),
                })
                .collect(),
            next_page_token: page.next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn cancel_execution(
        &self,
        request: Request<wire::CancelExecutionRequest>,
    ) -> Answer<wire::CancelExecutionResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, mut facts) = caller
            .execution(&self.0.executions, &request.execution_id)
            .await?;
        if let Some(execution) = self.0.executions.find(&id) {
            let grace = match request.grace_ms {
                0 => self.0.cancel_grace,
                asked => Duration::from_millis(asked.min(STOP_GRACE_MAX_MS)),
            };
            execution.cancel(grace).await;
            facts = execution.ended().await;
        }
        Ok(Response::new(wire::CancelExecutionResponse {
            execution: Some(convert::execution(&facts)),
        }))
    }

    async fn signal_execution(
        &self,
        request: Request<wire::SignalExecutionRequest>,
    ) -> Answer<wire::SignalExecutionResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, _) = caller
            .execution(&self.0.executions, &request.execution_id)
            .await?;
        if !(1..=64).contains(&request.signal) {
            return Err(ApiError::field("signal", "is a Linux signal, 1 to 64").into());
        }
        if let Some(execution) = self.0.executions.find(&id) {
            execution.signal(request.signal).await;
        }
        Ok(Response::new(wire::SignalExecutionResponse {}))
    }

    async fn read_output(
        &self,
        request: Request<wire::ReadOutputRequest>,
    ) -> Answer<Self::ReadOutputStream> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (id, _) = caller
            .execution(&self.0.executions, &request.execution_id)
            .await?;
        let follow = self
            .0
            .executions
            .follow(&id, request.from_offset, false)
            .await
            .map_err(ApiError::from)?
            .ok_or_else(|| ApiError::no_execution(&request.execution_id))?;
        Ok(Response::new(execute::read_only(follow, request.follow)))
    }

    async fn read_file(
        &self,
        request: Request<wire::ReadFileRequest>,
    ) -> Answer<Self::ReadFileStream> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let open = files::open(&self.sandbox(caller, &request.sandbox)?)?;
        Ok(Response::new(files::read_file(open, request.path).await?))
    }

    async fn write_file(
        &self,
        request: Request<Streaming<wire::WriteFileRequest>>,
    ) -> Answer<wire::WriteFileResponse> {
        use wire::write_file_request::Part;
        let caller = Caller::of(&request)?;
        let mut pieces = request.into_inner();
        let Some(Part::Open(first)) = pieces.message().await?.and_then(|piece| piece.part) else {
            return Err(ApiError::field("part", "the first message is \"open\"").into());
        };
        let open = files::open(&self.sandbox(caller, &first.sandbox)?)?;
        Ok(Response::new(files::write_file(open, first, pieces).await?))
    }

    async fn stat_file(
        &self,
        request: Request<wire::StatFileRequest>,
    ) -> Answer<wire::StatFileResponse> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let open = files::open(&self.sandbox(caller, &request.sandbox)?)?;
        Ok(Response::new(files::stat(open, request).await?))
    }

    async fn read_archive(
        &self,
        request: Request<wire::ReadArchiveRequest>,
    ) -> Answer<Self::ReadArchiveStream> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let open = files::open(&self.sandbox(caller, &request.sandbox)?)?;
        Ok(Response::new(
            files::read_archive(open, request.path).await?,
        ))
    }

    async fn write_archive(
        &self,
        request: Request<Streaming<wire::WriteArchiveRequest>>,
    ) -> Answer<wire::WriteArchiveResponse> {
        use wire::write_archive_request::Part;
        let caller = Caller::of(&request)?;
        let mut pieces = request.into_inner();
        let Some(Part::Open(first)) = pieces.message().await?.and_then(|piece| piece.part) else {
            return Err(ApiError::field("part", "the first message is \"open\"").into());
        };
        let open = files::open(&self.sandbox(caller, &first.sandbox)?)?;
        let written = files::write_archive(open, first.path, pieces).await?;
        Ok(Response::new(written))
    }

    async fn forward(
        &self,
        request: Request<Streaming<wire::ForwardRequest>>,
    ) -> Answer<Self::ForwardStream> {
        use wire::forward_request::Part;
        let caller = Caller::of(&request)?;
        let mut pieces = request.into_inner();
        let Some(Part::Open(first)) = pieces.message().await?.and_then(|piece| piece.part) else {
            return Err(ApiError::field("part", "the first message is \"open\"").into());
        };
        if !(1..=65_535).contains(&first.port) {
            return Err(ApiError::field("port", "is a TCP port, 1 to 65535").into());
        }
        let open = files::open(&self.sandbox(caller, &first.sandbox)?)?;
        Ok(Response::new(
            files::forward(open, first.port, pieces).await?,
        ))
    }

    async fn read_console(
        &self,
        request: Request<wire::ReadConsoleRequest>,
    ) -> Answer<Self::ReadConsoleStream> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
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

    async fn sandbox_stats(
        &self,
        request: Request<wire::SandboxStatsRequest>,
    ) -> Answer<wire::SandboxStatsResponse> {
        let caller = Caller::of(&request)?;
        let sandbox = self.sandbox(caller, &request.get_ref().sandbox)?;
        let driver = self.needs(&sandbox, "stats", |can| can.stats)?;
        let stats = driver.stats(sandbox.id()).await.map_err(ApiError::from)?;
        Ok(Response::new(wire::SandboxStatsResponse {
            stats: Some(stats),
        }))
    }

    async fn list_drivers(
        &self,
        request: Request<wire::ListDriversRequest>,
    ) -> Answer<wire::ListDriversResponse> {
        Caller::of(&request)?;
        let drivers = self.0.drivers.list();
        let drivers = drivers
            .iter()
            .map(|driver| convert::driver(driver, self.0.sandboxes.of_driver(driver.name()).len()))
            .collect();
        Ok(Response::new(wire::ListDriversResponse { drivers }))
    }

    async fn get_driver(
        &self,
        request: Request<wire::GetDriverRequest>,
    ) -> Answer<wire::GetDriverResponse> {
        Caller::of(&request)?;
        let name = &request.get_ref().name;
        let found = self
            .0
            .drivers
            .list()
            .into_iter()
            .find(|driver| driver.name().as_str() == name);
        let Some(driver) = found else {
            let message = format!("there is no driver {name:?} in this gateway");
            return Err(ApiError::new(Code::NotFound, "UNKNOWN_DRIVER", message)
                .hint("`cofferdam driver ls` lists those that are")
                .into());
        };
        let count = self.0.sandboxes.of_driver(driver.name()).len();
        Ok(Response::new(wire::GetDriverResponse {
            driver: Some(convert::driver(&driver, count)),
        }))
    }
}

fn page_size(asked: u32) -> usize {
    let size = match asked {
        0 => PAGE_DEFAULT,
        asked => asked.min(PAGE_MAX),
    };
    size as usize
}
