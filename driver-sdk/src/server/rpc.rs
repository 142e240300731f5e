//! The contract's RPCs, each: who calls, is it within bounds, is it among the capabilities, then the
//! driver.

use std::time::Duration;

use cofferdam_proto::compute::v1::compute_driver_server::ComputeDriver as Service;
use futures_util::StreamExt as _;
use tonic::{Request, Response, Status};

use super::answer::ResponseStream;
use super::invoke::connection;
use super::{Server, checks};
use crate::driver::{ComputeDriver, DriverStream, RecoverItem};
use crate::error::DriverError;
use crate::proto::*;
use crate::watch;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl<D: ComputeDriver> Service for Server<D> {
    async fn handshake(&self, request: Request<HandshakeRequest>) -> Answer<HandshakeResponse> {
        let bounds = self.bounds(&request, "Handshake", "", "")?;
        let connection = connection(&request)?.clone();
        bounds
            .unary(async { self.shake_hands(&connection, request.into_inner()) })
            .await
    }

    async fn configure(&self, request: Request<ConfigureRequest>) -> Answer<ConfigureResponse> {
        let bounds = self.bounds(&request, "Configure", "", "")?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                call?;
                // Not to be named `self.configure`, which is this very RPC.
                Server::configure(self, request.into_inner()).await
            })
            .await
    }

    type FingerprintStream = ResponseStream<FingerprintResponse>;
    async fn fingerprint(
        &self,
        request: Request<FingerprintRequest>,
    ) -> Answer<Self::FingerprintStream> {
        let bounds = self.bounds(&request, "Fingerprint", "", "")?;
        let call = self.call(&request, &bounds);
        bounds
            .stream(async {
                call?;
                Ok(Box::pin(self.0.fingerprints.stream()) as DriverStream<_>)
            })
            .await
    }

    async fn validate_sandbox(
        &self,
        request: Request<ValidateSandboxRequest>,
    ) -> Answer<ValidateSandboxResponse> {
        let bounds = self.bounds(&request, "ValidateSandbox", "", "")?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let spec = request
                    .into_inner()
                    .spec
                    .ok_or_else(|| DriverError::invalid_field("spec", "must be set"))?;
                let mut violations = self.violations(&call?, &spec).await?;
                if spec.expire_time_unix_ms > 0 {
                    violations.extend(checks::expired(&spec));
                }
                Ok(ValidateSandboxResponse { violations })
            })
            .await
    }

    type PrepareImageStream = ResponseStream<PrepareImageResponse>;
    async fn prepare_image(
        &self,
        request: Request<PrepareImageRequest>,
    ) -> Answer<Self::PrepareImageStream> {
        let bounds = self.bounds(&request, "PrepareImage", "", "")?;
        let call = self.call(&request, &bounds);
        bounds
            .stream(async {
                let call = call?;
                self.can("PrepareImage", |can| {
                    can.images
                        .is_some_and(|images| images.registry || images.archive)
                })?;
                let image = checks::image(request.get_ref().image.as_ref())?;
                self.0.driver.prepare_image(&call, image).await
            })
            .await
    }

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Answer<CreateSandboxResponse> {
        let asked = request.get_ref();
        let bounds = self.bounds(
            &request,
            "CreateSandbox",
            &asked.sandbox_id,
            &asked.operation_id,
        )?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let make = |request| self.0.driver.create(&call, request);
                let created = self
                    .make(&call, "CreateSandbox", request.into_inner(), make)
                    .await?;
                Ok(CreateSandboxResponse {
                    handle: Some(created.handle),
                    sandbox: Some(created.sandbox),
                })
            })
            .await
    }

    async fn recover_sandboxes(
        &self,
        request: Request<RecoverSandboxesRequest>,
    ) -> Answer<RecoverSandboxesResponse> {
        let bounds = self.bounds(&request, "RecoverSandboxes", "", "")?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let request = request.into_inner();
                checks::recover(&request)?;
                let items = request.items.into_iter().map(|item| RecoverItem {
                    sandbox_id: item.sandbox_id,
                    handle: item.handle,
                    callback_directory: checks::directory(item.callback_directory),
                });
                let results = self.recover_all(&call, items).await;
                Ok(RecoverSandboxesResponse { results })
            })
            .await
    }

    async fn start_sandbox(
        &self,
        request: Request<StartSandboxRequest>,
    ) -> Answer<StartSandboxResponse> {
        const RPC: &str = "StartSandbox";
        let asked = request.get_ref();
        let bounds = self.bounds(&request, RPC, &asked.sandbox_id, &asked.operation_id)?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let request = request.into_inner();
                let id = &request.sandbox_id;
                checks::sandbox(id, &request.operation_id)?;
                self.can(RPC, |can| can.stop_start)?;
                let token = checks::start_token(&request.bootstrap_token)?;
                let work = || self.0.driver.start(&call, id, token);
                let sandbox = Some(self.operate(&call, id, RPC, work).await?);
                Ok(StartSandboxResponse { sandbox })
            })
            .await
    }

    async fn stop_sandbox(
        &self,
        request: Request<StopSandboxRequest>,
    ) -> Answer<StopSandboxResponse> {
        const RPC: &str = "StopSandbox";
        let asked = request.get_ref();
        let bounds = self.bounds(&request, RPC, &asked.sandbox_id, &asked.operation_id)?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let request = request.into_inner();
                let id = &request.sandbox_id;
                checks::sandbox(id, &request.operation_id)?;
                self.can(RPC, |can| can.stop_start)?;
                let grace = Duration::from_millis(request.grace_ms);
                let work = || self.0.driver.stop(&call, id, grace);
                let sandbox = Some(self.operate(&call, id, RPC, work).await?);
                Ok(StopSandboxResponse { sandbox })
            })
            .await
    }

    async fn delete_sandbox(
        &self,
        request: Request<DeleteSandboxRequest>,
    ) -> Answer<DeleteSandboxResponse> {
        let asked = request.get_ref();
        let bounds = self.bounds(
            &request,
            "DeleteSandbox",
            &asked.sandbox_id,
            &asked.operation_id,
        )?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let id = &request.get_ref().sandbox_id;
                checks::sandbox(id, &request.get_ref().operation_id)?;
                let gateway_id = call.gateway_id();
                let operation = self.0.operations.take_over(gateway_id, id).await?;
                operation.run(self.0.driver.delete(&call, id)).await?;
                self.0.context.observations.remove(gateway_id, id);
                Ok(DeleteSandboxResponse {})
            })
            .await
    }

    async fn get_sandbox(&self, request: Request<GetSandboxRequest>) -> Answer<GetSandboxResponse> {
        let bounds = self.bounds(&request, "GetSandbox", &request.get_ref().sandbox_id, "")?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let id = &request.get_ref().sandbox_id;
                checks::sandbox(id, "")?;
                let sandbox = self.0.driver.get(&call, id).await?;
                let sandbox = Some(self.observed(&call, sandbox)?);
                Ok(GetSandboxResponse { sandbox })
            })
            .await
    }

    async fn list_sandboxes(
        &self,
        request: Request<ListSandboxesRequest>,
    ) -> Answer<ListSandboxesResponse> {
        let bounds = self.bounds(&request, "ListSandboxes", "", "")?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                checks::text("page_token", &request.get_ref().page_token)?;
                self.page(&call?, request.into_inner()).await
            })
            .await
    }

    type WatchSandboxesStream = ResponseStream<WatchSandboxesResponse>;
    async fn watch_sandboxes(
        &self,
        request: Request<WatchSandboxesRequest>,
    ) -> Answer<Self::WatchSandboxesStream> {
        let bounds = self.bounds(&request, "WatchSandboxes", "", "")?;
        let call = self.call(&request, &bounds);
        bounds
            .stream(async {
                let gateway_id = call?.gateway.id.clone();
                let cursor = request.into_inner().cursor;
                checks::text("cursor", &cursor)?;
                let observations = self.0.context.observations.clone();
                let stream = watch::watch_stream(observations, gateway_id, cursor);
                Ok(Box::pin(stream) as DriverStream<_>)
            })
            .await
    }

    type ReadConsoleStream = ResponseStream<ReadConsoleResponse>;
    async fn read_console(
        &self,
        request: Request<ReadConsoleRequest>,
    ) -> Answer<Self::ReadConsoleStream> {
        let bounds = self.bounds(&request, "ReadConsole", &request.get_ref().sandbox_id, "")?;
        let call = self.call(&request, &bounds);
        bounds
            .stream(async {
                let call = call?;
                checks::sandbox(&request.get_ref().sandbox_id, "")?;
                self.can("ReadConsole", |can| can.console)?;
                let bytes = self
                    .0
                    .driver
                    .read_console(&call, request.into_inner())
                    .await?;
                let messages = bytes.map(|data| data.map(|data| ReadConsoleResponse { data }));
                Ok(Box::pin(messages) as DriverStream<_>)
            })
            .await
    }

    type SandboxStatsStream = ResponseStream<SandboxStatsResponse>;
    async fn sandbox_stats(
        &self,
        request: Request<SandboxStatsRequest>,
    ) -> Answer<Self::SandboxStatsStream> {
        let bounds = self.bounds(&request, "SandboxStats", &request.get_ref().sandbox_id, "")?;
        let call = self.call(&request, &bounds);
        bounds
            .stream(async {
                let call = call?;
                let request = request.into_inner();
                checks::stats(&request)?;
                self.can("SandboxStats", |can| can.stats)?;
                let first = self.0.driver.stats(&call, &request.sandbox_id).await?;
                Ok(self.clone().measure(call, request, first))
            })
            .await
    }

    type RunCommandStream = ResponseStream<RunCommandResponse>;
    async fn run_command(
        &self,
        request: Request<RunCommandRequest>,
    ) -> Answer<Self::RunCommandStream> {
        let asked = request.get_ref();
        let bounds = self.bounds(
            &request,
            "RunCommand",
            &asked.sandbox_id,
            &asked.operation_id,
        )?;
        let call = self.call(&request, &bounds);
        bounds
            .stream(async {
                let call = call?;
                checks::run_command(request.get_ref())?;
                self.can("RunCommand", |can| {
                    can.execution() == Execution::DriverExecuted
                })?;
                self.0.driver.run_command(&call, request.into_inner()).await
            })
            .await
    }

    async fn pause_sandbox(
        &self,
        request: Request<PauseSandboxRequest>,
    ) -> Answer<PauseSandboxResponse> {
        const RPC: &str = "PauseSandbox";
        let asked = request.get_ref();
        let bounds = self.bounds(&request, RPC, &asked.sandbox_id, &asked.operation_id)?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let id = &request.get_ref().sandbox_id;
                checks::sandbox(id, &request.get_ref().operation_id)?;
                self.can(RPC, |can| can.pause)?;
                let work = || self.0.driver.pause(&call, id);
                let sandbox = Some(self.operate(&call, id, RPC, work).await?);
                Ok(PauseSandboxResponse { sandbox })
            })
            .await
    }

    async fn resume_sandbox(
        &self,
        request: Request<ResumeSandboxRequest>,
    ) -> Answer<ResumeSandboxResponse> {
        const RPC: &str = "ResumeSandbox";
        let asked = request.get_ref();
        let bounds = self.bounds(&request, RPC, &asked.sandbox_id, &asked.operation_id)?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let id = &request.get_ref().sandbox_id;
                checks::sandbox(id, &request.get_ref().operation_id)?;
                self.can(RPC, |can| can.pause)?;
                let work = || self.0.driver.resume(&call, id);
                let sandbox = Some(self.operate(&call, id, RPC, work).await?);
                Ok(ResumeSandboxResponse { sandbox })
            })
            .await
    }

    async fn snapshot_sandbox(
        &self,
        request: Request<SnapshotSandboxRequest>,
    ) -> Answer<SnapshotSandboxResponse> {
        const RPC: &str = "SnapshotSandbox";
        let asked = request.get_ref();
        let bounds = self.bounds(&request, RPC, &asked.sandbox_id, &asked.operation_id)?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let asked = request.get_ref();
                checks::sandbox(&asked.sandbox_id, &asked.operation_id)?;
                checks::snapshot(&asked.snapshot_id, "", None)?;
                self.can(RPC, |can| can.snapshot)?;
                let (id, snapshot_id) = (&asked.sandbox_id, &asked.snapshot_id);
                let operation = self.0.operations.begin(call.gateway_id(), id, RPC)?;
                operation
                    .run(self.0.driver.snapshot(&call, id, snapshot_id))
                    .await
            })
            .await
    }

    async fn restore_sandbox(
        &self,
        request: Request<RestoreSandboxRequest>,
    ) -> Answer<RestoreSandboxResponse> {
        const RPC: &str = "RestoreSandbox";
        let bounds = self.bounds(&request, RPC, &request.get_ref().snapshot_id, "")?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let request = request.into_inner();
                checks::snapshot(&request.snapshot_id, "", request.handle.as_ref())?;
                self.can(RPC, |can| can.snapshot)?;
                let create = request
                    .create
                    .ok_or_else(|| DriverError::invalid_field("create", "must be set"))?;
                let make = |create| {
                    let (id, handle) = (&request.snapshot_id, request.handle.clone());
                    self.0.driver.restore(&call, id, handle, create)
                };
                let created = self.make(&call, RPC, create, make).await?;
                Ok(RestoreSandboxResponse {
                    handle: Some(created.handle),
                    sandbox: Some(created.sandbox),
                })
            })
            .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        const RPC: &str = "DeleteSnapshot";
        let bounds = self.bounds(&request, RPC, &request.get_ref().snapshot_id, "")?;
        let call = self.call(&request, &bounds);
        bounds
            .unary(async {
                let call = call?;
                let request = request.into_inner();
                checks::snapshot(&request.snapshot_id, "", request.handle.as_ref())?;
                self.can(RPC, |can| can.snapshot)?;
                let (id, handle) = (&request.snapshot_id, request.handle);
                self.0.driver.delete_snapshot(&call, id, handle).await?;
                Ok(DeleteSnapshotResponse {})
            })
            .await
    }
}
