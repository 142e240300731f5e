//! The contract's RPCs, each passed on to the SDK's server and falsified on its way back.

use cofferdam_proto::compute::v1::compute_driver_server::ComputeDriver as Service;
use tonic::{Request, Response, Status};

use super::platform::Shared;
use super::variant::Variant;
use super::{health, inventory, variants, watch};
use crate::fake::FakeDriver;
use crate::proto::recover_sandboxes_response::Outcome;
use crate::proto::*;
use crate::server::{ResponseStream, Server};

type Answer<T> = Result<Response<T>, Status>;

/// A driver that does as its script says.
#[derive(Debug, Clone)]
pub(super) struct Faulty {
    live: Shared,
}

impl Faulty {
    pub(super) fn new(live: Shared) -> Self {
        Self { live }
    }

    /// The server of the present incarnation.
    async fn enter<T>(&self, request: &Request<T>) -> Server<FakeDriver> {
        let server = self.live.server();
        if self.live.breaks(Variant::HandshakeNotNeeded) {
            variants::let_in(&server, request).await;
        }
        server
    }

    fn show(&self, sandbox: &mut Option<Sandbox>) {
        if let Some(sandbox) = sandbox {
            variants::show(&self.live, sandbox);
        }
    }
}

#[tonic::async_trait]
impl Service for Faulty {
    async fn handshake(&self, request: Request<HandshakeRequest>) -> Answer<HandshakeResponse> {
        let mut answer = Service::handshake(&self.live.server(), request).await?;
        answer.get_mut().incarnation = self.live.incarnation().1;
        Ok(answer)
    }

    async fn configure(&self, request: Request<ConfigureRequest>) -> Answer<ConfigureResponse> {
        let server = self.enter(&request).await;
        let platform = self.live.platform();
        platform.configured(request.extensions(), request.get_ref());
        Service::configure(&server, request).await
    }

    type FingerprintStream = ResponseStream<FingerprintResponse>;
    async fn fingerprint(
        &self,
        request: Request<FingerprintRequest>,
    ) -> Answer<Self::FingerprintStream> {
        let server = self.enter(&request).await;
        let truth = Service::fingerprint(&server, request).await?;
        Ok(truth.map(|truth| health::falsify(self.live.clone(), truth)))
    }

    async fn validate_sandbox(
        &self,
        request: Request<ValidateSandboxRequest>,
    ) -> Answer<ValidateSandboxResponse> {
        let server = self.enter(&request).await;
        Service::validate_sandbox(&server, request).await
    }

    type PrepareImageStream = ResponseStream<PrepareImageResponse>;
    async fn prepare_image(
        &self,
        request: Request<PrepareImageRequest>,
    ) -> Answer<Self::PrepareImageStream> {
        let server = self.enter(&request).await;
        Service::prepare_image(&server, request).await
    }

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Answer<CreateSandboxResponse> {
        let server = self.enter(&request).await;
        let mut answer = variants::create(&self.live, &server, request).await?;
        self.show(&mut answer.get_mut().sandbox);
        Ok(answer)
    }

    async fn recover_sandboxes(
        &self,
        request: Request<RecoverSandboxesRequest>,
    ) -> Answer<RecoverSandboxesResponse> {
        let server = self.enter(&request).await;
        if self.live.breaks(Variant::DeletedBecauseUnseen) {
            variants::delete_unseen(&server, &request).await?;
        }
        let had_handle: Vec<bool> = request
            .get_ref()
            .items
            .iter()
            .map(|item| item.handle.is_some())
            .collect();
        let mut answer = Service::recover_sandboxes(&server, request).await?;
        let current = self.live.current();
        for (result, had_handle) in answer.get_mut().results.iter_mut().zip(had_handle) {
            self.show(&mut result.sandbox);
            inventory::recovered(&current.script.inventory, result);
            let unreadable = had_handle && result.outcome() == Outcome::Unknown;
            if unreadable && self.live.breaks(Variant::GoneBecauseUnreadable) {
                result.set_outcome(Outcome::Gone);
            }
        }
        Ok(answer)
    }

    async fn start_sandbox(
        &self,
        request: Request<StartSandboxRequest>,
    ) -> Answer<StartSandboxResponse> {
        let server = self.enter(&request).await;
        let mut answer = Service::start_sandbox(&server, request).await?;
        self.show(&mut answer.get_mut().sandbox);
        Ok(answer)
    }

    async fn stop_sandbox(
        &self,
        request: Request<StopSandboxRequest>,
    ) -> Answer<StopSandboxResponse> {
        let server = self.enter(&request).await;
        let mut answer = variants::stop(&self.live, &server, request).await?;
        self.show(&mut answer.get_mut().sandbox);
        Ok(answer)
    }

    async fn delete_sandbox(
        &self,
        request: Request<DeleteSandboxRequest>,
    ) -> Answer<DeleteSandboxResponse> {
        let server = self.enter(&request).await;
        variants::delete_sandbox(&self.live, &server, request).await
    }

    async fn get_sandbox(&self, request: Request<GetSandboxRequest>) -> Answer<GetSandboxResponse> {
        let server = self.enter(&request).await;
        let id = &request.get_ref().sandbox_id;
        let current = self.live.current();
        let faults = &current.script.inventory;
        if faults.deny && faults.omits(id) {
            return Err(Status::not_found(format!("there is no sandbox {id}")));
        }
        let mut answer = Service::get_sandbox(&server, request).await?;
        self.show(&mut answer.get_mut().sandbox);
        Ok(answer)
    }

    async fn list_sandboxes(
        &self,
        mut request: Request<ListSandboxesRequest>,
    ) -> Answer<ListSandboxesResponse> {
        let server = self.enter(&request).await;
        let (real, said) = self.live.incarnation();
        let token = &mut request.get_mut().page_token;
        if let Some(page) = inventory::endless(token, said.clone()) {
            return Ok(Response::new(page));
        }
        *token = token.replacen(&said, &real, 1);
        let mut answer = match self.live.breaks(Variant::UnboundedListPage) {
            true => variants::whole_list(&server, request).await?,
            false => Service::list_sandboxes(&server, request).await?,
        };
        let page = answer.get_mut();
        page.next_page_token = page.next_page_token.replacen(&real, &said, 1);
        page.incarnation = said;
        for sandbox in &mut page.sandboxes {
            variants::show(&self.live, sandbox);
        }
        let current = self.live.current();
        let mut faults = current.script.inventory.clone();
        faults.endless |= self.live.breaks(Variant::EndlessPages);
        inventory::page(&faults, page);
        Ok(answer)
    }

    type WatchSandboxesStream = ResponseStream<WatchSandboxesResponse>;
    async fn watch_sandboxes(
        &self,
        mut request: Request<WatchSandboxesRequest>,
    ) -> Answer<Self::WatchSandboxesStream> {
        let server = self.enter(&request).await;
        let (real, said) = self.live.incarnation();
        let cursor = &mut request.get_mut().cursor;
        *cursor = cursor.replacen(&said, &real, 1);
        let goes_on = !cursor.is_empty();
        let is_other = goes_on && !cursor.starts_with(&format!("{real}."));
        let truth = if is_other && self.live.breaks(Variant::OldCursorAccepted) {
            variants::watch_from_now(&server, request.extensions()).await?
        } else {
            Service::watch_sandboxes(&server, request)
                .await?
                .into_inner()
        };
        let told = watch::told(self.live.clone(), goes_on, truth);
        Ok(Response::new(told))
    }

    type ReadConsoleStream = ResponseStream<ReadConsoleResponse>;
    async fn read_console(
        &self,
        request: Request<ReadConsoleRequest>,
    ) -> Answer<Self::ReadConsoleStream> {
        let server = self.enter(&request).await;
        Service::read_console(&server, request).await
    }

    type SandboxStatsStream = ResponseStream<SandboxStatsResponse>;
    async fn sandbox_stats(
        &self,
        request: Request<SandboxStatsRequest>,
    ) -> Answer<Self::SandboxStatsStream> {
        let server = self.enter(&request).await;
        Service::sandbox_stats(&server, request).await
    }

    type RunCommandStream = ResponseStream<RunCommandResponse>;
    async fn run_command(
        &self,
        request: Request<RunCommandRequest>,
    ) -> Answer<Self::RunCommandStream> {
        let server = self.enter(&request).await;
        Service::run_command(&server, request).await
    }

    async fn pause_sandbox(
        &self,
        request: Request<PauseSandboxRequest>,
    ) -> Answer<PauseSandboxResponse> {
        let server = self.enter(&request).await;
        Service::pause_sandbox(&server, request).await
    }

    async fn resume_sandbox(
        &self,
        request: Request<ResumeSandboxRequest>,
    ) -> Answer<ResumeSandboxResponse> {
        let server = self.enter(&request).await;
        Service::resume_sandbox(&server, request).await
    }

    async fn snapshot_sandbox(
        &self,
        request: Request<SnapshotSandboxRequest>,
    ) -> Answer<SnapshotSandboxResponse> {
        let server = self.enter(&request).await;
        Service::snapshot_sandbox(&server, request).await
    }

    async fn restore_sandbox(
        &self,
        request: Request<RestoreSandboxRequest>,
    ) -> Answer<RestoreSandboxResponse> {
        let server = self.enter(&request).await;
        Service::restore_sandbox(&server, request).await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        let server = self.enter(&request).await;
        Service::delete_snapshot(&server, request).await
    }
}
