//! The handle by which the rest of the gateway sees and calls a driver.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::compute::v1 as wire;
use futures_util::stream::{BoxStream, StreamExt};
use tokio::sync::watch;

use super::call::{Call, Client};
use super::shared::Shared;
use super::status::Answer;
use super::{CallDeadlines, CallError, CallErrorKind, DriverView, Subject, Violation, convert};
use crate::model::{DriverName, Handle, Observation, OperationId, SandboxId, SandboxSpec, Token};

/// A driver, connected or not. Cheap to clone.
///
/// Each call has its own deadline, waits for a driver that is just being reached, and repeats
/// itself where the contract says so; every RPC of the contract may come twice. Dropping the future
/// of a call cancels the RPC, after which it may have taken effect.
#[derive(Debug, Clone)]
pub struct Driver {
    pub(super) shared: Arc<Shared>,
}

/// What `create` needs.
#[derive(Debug, Clone)]
pub struct CreateCall {
    pub sandbox_id: SandboxId,
    pub spec: SandboxSpec,
    /// Empty for driver-executed platforms.
    pub callback_directory: PathBuf,
    pub token: Token,
    pub operation: OperationId,
}

/// What `start` needs.
#[derive(Debug, Clone)]
pub struct StartCall {
    pub sandbox_id: SandboxId,
    pub token: Token,
    pub operation: OperationId,
}

impl Driver {
    /// The name under which the operator attached it.
    pub fn name(&self) -> &DriverName {
        &self.shared.name
    }

    /// What is known of it now.
    pub fn view(&self) -> Arc<DriverView> {
        self.shared.view()
    }

    /// The view whenever it changes.
    pub fn changes(&self) -> watch::Receiver<Arc<DriverView>> {
        self.shared.views()
    }

    /// Has the driver accept a sandbox. The same call again, with the same spec, gives the same. A
    /// `delete` of the same id ends it.
    pub async fn create(&self, call: CreateCall) -> Result<(Handle, Observation), CallError> {
        let directory = path_text("callback directory", &call.callback_directory)?;
        let request = wire::CreateSandboxRequest {
            sandbox_id: call.sandbox_id.as_str().to_owned(),
            spec: Some(convert::spec_to_wire(&call.spec)),
            callback_directory: directory,
            bootstrap_token: Bytes::copy_from_slice(&call.token.0),
            operation_id: call.operation.as_str().to_owned(),
        };
        let id = &call.sandbox_id;
        let prepared = self.call(format!("create {id}"), self.deadlines().create);
        let rpc = |mut client: Client, request| async move { client.create_sandbox(request).await };
        let create = self.shared.begin_create(id);
        let answer = create.ended.run_until_cancelled(prepared.run(request, rpc));
        let response = answer.await.unwrap_or_else(|| Err(self.overtaken(id)))?;
        let handle = response.handle.map(convert::handle_from_wire);
        let handle = handle.ok_or_else(|| self.broken("create", "there is no handle"))?;
        Ok((handle, self.observation("create", id, response.sandbox)?))
    }

    /// Starts a stopped sandbox: a new boot with a new token.
    pub async fn start(&self, call: StartCall) -> Result<Observation, CallError> {
        let request = wire::StartSandboxRequest {
            sandbox_id: call.sandbox_id.as_str().to_owned(),
            bootstrap_token: Bytes::copy_from_slice(&call.token.0),
            operation_id: call.operation.as_str().to_owned(),
        };
        let id = &call.sandbox_id;
        let prepared = self.call(format!("start {id}"), self.deadlines().start);
        let rpc = |mut client: Client, request| async move { client.start_sandbox(request).await };
        let response = prepared.run(request, rpc).await?;
        self.observation("start", id, response.sandbox)
    }

    /// Stops a sandbox. Nothing of it runs any more when this succeeds.
    pub async fn stop(
        &self,
        sandbox_id: &SandboxId,
        grace: Duration,
        operation: &OperationId,
    ) -> Result<Observation, CallError> {
        let request = wire::StopSandboxRequest {
            sandbox_id: sandbox_id.as_str().to_owned(),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            operation_id: operation.as_str().to_owned(),
        };
        let deadline = grace.saturating_add(self.deadlines().stop);
        let prepared = self.call(format!("stop {sandbox_id}"), deadline);
        let rpc = |mut client: Client, request| async move { client.stop_sandbox(request).await };
        let response = prepared.run(request, rpc).await?;
        self.observation("stop", sandbox_id, response.sandbox)
    }

    /// Removes a sandbox with all that belongs to it. An unknown one is fine.
    pub async fn delete(
        &self,
        sandbox_id: &SandboxId,
        operation: &OperationId,
    ) -> Result<(), CallError> {
        self.shared.end_create(sandbox_id);
        let request = wire::DeleteSandboxRequest {
            sandbox_id: sandbox_id.as_str().to_owned(),
            operation_id: operation.as_str().to_owned(),
        };
        let prepared = self.call(format!("delete {sandbox_id}"), self.deadlines().delete);
        let rpc = |mut client: Client, request| async move { client.delete_sandbox(request).await };
        prepared.run(request, rpc).await.map(drop)
    }

    /// Observes one sandbox. `None`: the platform says that there is no such sandbox.
    pub async fn get(&self, sandbox_id: &SandboxId) -> Result<Option<Observation>, CallError> {
        let request = wire::GetSandboxRequest {
            sandbox_id: sandbox_id.as_str().to_owned(),
        };
        let prepared = self.call(format!("get {sandbox_id}"), self.deadlines().observe);
        let rpc = |mut client: Client, request| async move { client.get_sandbox(request).await };
        match prepared.run(request, rpc).await {
            Ok(response) => self
                .observation("get", sandbox_id, response.sandbox)
                .map(Some),
            Err(error) if error.kind == CallErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Everything that the driver finds wrong with a spec.
    pub async fn validate(&self, spec: &SandboxSpec) -> Result<Vec<Violation>, CallError> {
        let request = wire::ValidateSandboxRequest {
            spec: Some(convert::spec_to_wire(spec)),
        };
        let prepared = self.call("validate".to_owned(), self.deadlines().observe);
        let rpc =
            |mut client: Client, request| async move { client.validate_sandbox(request).await };
        let response = prepared.run(request, rpc).await?;
        let violations = response.violations.into_iter();
        Ok(violations
            .map(|violation| Violation {
                field: convert::plain(violation.field),
                message: convert::plain(violation.message),
            })
            .collect())
    }

    /// Checks `driver_config` against the driver's schema, without a call. Paths are relative to
    /// `driver_config`.
    pub fn driver_config_violations(
        &self,
        config: &serde_json::Map<String, serde_json::Value>,
    ) -> Vec<Violation> {
        self.shared.config_schema().violations(config)
    }

    /// The platform's log of a sandbox. `tail_bytes` 0: all that is kept. An item that is an error
    /// is the last one.
    pub async fn console(
        &self,
        sandbox_id: &SandboxId,
        tail_bytes: u64,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Bytes, CallError>>, CallError> {
        let request = wire::ReadConsoleRequest {
            sandbox_id: sandbox_id.as_str().to_owned(),
            tail_bytes,
            follow,
        };
        let deadline = match follow {
            true => self.deadlines().follow,
            false => self.deadlines().observe,
        };
        let prepared = self.call(format!("console {sandbox_id}"), deadline);
        let rpc = |mut client: Client, request| async move { client.read_console(request).await };
        let stream = prepared.run(request, rpc).await?;
        let driver = self.name().clone();
        let ended = tokio::time::sleep(deadline);
        let chunks = stream.take_until(ended).map(move |item| match item {
            Ok(chunk) => Ok(chunk.data),
            Err(status) => Err(Answer::of(&status).into_error(driver.as_str(), "console")),
        });
        Ok(chunks.boxed())
    }

    /// Use of resources, once.
    pub async fn stats(
        &self,
        sandbox_id: &SandboxId,
    ) -> Result<wire::SandboxStatsResponse, CallError> {
        let request = wire::SandboxStatsRequest {
            sandbox_id: sandbox_id.as_str().to_owned(),
            interval_ms: 0,
        };
        let prepared = self.call(format!("stats {sandbox_id}"), self.deadlines().observe);
        let rpc = |mut client: Client, request| async move {
            let mut stream = client.sandbox_stats(request).await?.into_inner();
            let first = stream.message().await?;
            let nothing = || tonic::Status::internal("the stream ended without a measurement");
            first.map(tonic::Response::new).ok_or_else(nothing)
        };
        prepared.run(request, rpc).await
    }

    pub(super) fn deadlines(&self) -> &CallDeadlines {
        &self.shared.timing.calls
    }

    pub(super) fn call(&self, operation: String, deadline: Duration) -> Call<'_> {
        Call {
            driver: &self.shared,
            operation,
            deadline,
        }
    }

    /// The observation in an answer, which must be there and of the right sandbox.
    fn observation(
        &self,
        operation: &str,
        asked: &SandboxId,
        sandbox: Option<wire::Sandbox>,
    ) -> Result<Observation, CallError> {
        let sandbox = sandbox.ok_or_else(|| self.broken(operation, "there is no sandbox"))?;
        let observation = convert::observation_from_wire(sandbox)
            .map_err(|error| self.broken(operation, &error.to_string()))?;
        if observation.sandbox_id != *asked {
            let problem = format!("it is about {}, not {asked}", observation.sandbox_id);
            return Err(self.broken(operation, &problem));
        }
        Ok(observation)
    }

    fn overtaken(&self, sandbox_id: &SandboxId) -> CallError {
        CallError {
            kind: CallErrorKind::Unavailable,
            message: format!(
                "driver {}: create {sandbox_id}: a delete came in between",
                self.name()
            ),
            fix: String::new(),
            violations: Vec::new(),
            ambiguous: true,
        }
    }

    /// An answer that the contract does not allow.
    pub(super) fn broken(&self, operation: &str, problem: &str) -> CallError {
        let error = CallError {
            kind: CallErrorKind::Internal,
            message: format!(
                "driver {}: the answer to {operation} is not valid: {problem}",
                self.name()
            ),
            fix: String::new(),
            violations: Vec::new(),
            ambiguous: true,
        };
        self.shared.judge(operation, Some(&error));
        error
    }

    /// Puts something that was noticed about the driver into its view, for people.
    pub fn notice(&self, subject: Subject, is_failure: bool, detail: &str, fix: &str) {
        self.shared
            .notice(|notices| notices.fact(subject, is_failure, detail, fix));
    }

    /// The same for what is not taken back by anything: it is shown for a while.
    pub fn notice_once(&self, subject: Subject, detail: &str, fix: &str) {
        self.shared
            .notice(|notices| notices.passing_fact(subject, detail, fix));
    }

    /// It is not so any more.
    pub fn no_notice(&self, subject: Subject) {
        if self.view().notices.has_fact(subject) {
            self.shared.notice(|notices| notices.no_fact(subject));
        }
    }
}

/// Paths travel as strings.
pub(super) fn path_text(what: &str, path: &std::path::Path) -> Result<String, CallError> {
    path.to_str().map(str::to_owned).ok_or_else(|| CallError {
        kind: CallErrorKind::Invalid,
        message: format!("the {what} {} is not UTF-8", path.display()),
        fix: "choose a runtime directory whose path is UTF-8".to_owned(),
        violations: Vec::new(),
        ambiguous: false,
    })
}
