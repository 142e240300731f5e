//! The service: each method decodes, authorises, delegates, encodes.

use std::sync::atomic::Ordering;

use cofferdam_proto::gateway::v1 as wire;
use tonic::{Request, Response, Status, Streaming};
use wire::gateway_server::Gateway;

use super::Api;
use super::caller::Caller;
use super::execute::{self, EventStream};
use super::files::{self, Out};
use super::status::ApiError;

pub(super) type Answer<T> = Result<Response<T>, Status>;

pub(super) const STOP_GRACE_MAX_MS: u64 = 10 * 60 * 1_000;
const PAGE_DEFAULT: u32 = 500;
const PAGE_MAX: u32 = 1_000;

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
        let trouble = self.0.state_dir.trouble();
        Ok(Response::new(wire::GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            gateway_id: self.0.gateway_id.clone(),
            ready: self.0.ready.load(Ordering::Relaxed),
            draining: self.0.draining.load(Ordering::Relaxed),
            default_driver: self.0.default_driver.clone(),
            start_time_unix_ms: self.0.start_time.0,
            caller_uid: caller.uid,
            state_dir_fix: trouble
                .as_ref()
                .map(|t| t.hint().to_owned())
                .unwrap_or_default(),
            state_dir_trouble: trouble.map(|t| t.to_string()).unwrap_or_default(),
        }))
    }

    async fn create_sandbox(
        &self,
        request: Request<wire::CreateSandboxRequest>,
    ) -> Answer<wire::CreateSandboxResponse> {
        let caller = Caller::of(&request)?;
        Self::create_sandbox(self, caller, request.into_inner()).await
    }

    async fn get_sandbox(
        &self,
        request: Request<wire::GetSandboxRequest>,
    ) -> Answer<wire::GetSandboxResponse> {
        let caller = Caller::of(&request)?;
        Self::get_sandbox(self, caller, request.into_inner()).await
    }

    async fn list_sandboxes(
        &self,
        request: Request<wire::ListSandboxesRequest>,
    ) -> Answer<wire::ListSandboxesResponse> {
        let caller = Caller::of(&request)?;
        Self::list_sandboxes(self, caller, request.into_inner()).await
    }

    async fn watch_sandbox(
        &self,
        request: Request<wire::WatchSandboxRequest>,
    ) -> Answer<Self::WatchSandboxStream> {
        let caller = Caller::of(&request)?;
        Self::watch_sandbox(self, caller, request.into_inner()).await
    }

    async fn stop_sandbox(
        &self,
        request: Request<wire::StopSandboxRequest>,
    ) -> Answer<wire::StopSandboxResponse> {
        let caller = Caller::of(&request)?;
        Self::stop_sandbox(self, caller, request.into_inner()).await
    }

    async fn start_sandbox(
        &self,
        request: Request<wire::StartSandboxRequest>,
    ) -> Answer<wire::StartSandboxResponse> {
        let caller = Caller::of(&request)?;
        Self::start_sandbox(self, caller, request.into_inner()).await
    }

    async fn delete_sandbox(
        &self,
        request: Request<wire::DeleteSandboxRequest>,
    ) -> Answer<wire::DeleteSandboxResponse> {
        let caller = Caller::of(&request)?;
        Self::delete_sandbox(self, caller, request.into_inner()).await
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
        Self::create_execution(self, caller, request.into_inner()).await
    }

    async fn get_execution(
        &self,
        request: Request<wire::GetExecutionRequest>,
    ) -> Answer<wire::GetExecutionResponse> {
        let caller = Caller::of(&request)?;
        Self::get_execution(self, caller, request.into_inner()).await
    }

    async fn list_executions(
        &self,
        request: Request<wire::ListExecutionsRequest>,
    ) -> Answer<wire::ListExecutionsResponse> {
        let caller = Caller::of(&request)?;
        Self::list_executions(self, caller, request.into_inner()).await
    }

    async fn cancel_execution(
        &self,
        request: Request<wire::CancelExecutionRequest>,
    ) -> Answer<wire::CancelExecutionResponse> {
        let caller = Caller::of(&request)?;
        Self::cancel_execution(self, caller, request.into_inner()).await
    }

    async fn signal_execution(
        &self,
        request: Request<wire::SignalExecutionRequest>,
    ) -> Answer<wire::SignalExecutionResponse> {
        let caller = Caller::of(&request)?;
        Self::signal_execution(self, caller, request.into_inner()).await
    }

    async fn read_output(
        &self,
        request: Request<wire::ReadOutputRequest>,
    ) -> Answer<Self::ReadOutputStream> {
        let caller = Caller::of(&request)?;
        Self::read_output(self, caller, request.into_inner()).await
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
        Self::read_console(self, caller, request.into_inner()).await
    }

    async fn sandbox_stats(
        &self,
        request: Request<wire::SandboxStatsRequest>,
    ) -> Answer<wire::SandboxStatsResponse> {
        let caller = Caller::of(&request)?;
        Self::sandbox_stats(self, caller, request.into_inner()).await
    }

    async fn list_drivers(
        &self,
        request: Request<wire::ListDriversRequest>,
    ) -> Answer<wire::ListDriversResponse> {
        let caller = Caller::of(&request)?;
        Self::list_drivers(self, caller, request.into_inner()).await
    }

    async fn get_driver(
        &self,
        request: Request<wire::GetDriverRequest>,
    ) -> Answer<wire::GetDriverResponse> {
        let caller = Caller::of(&request)?;
        Self::get_driver(self, caller, request.into_inner()).await
    }
}

/// How many objects a page of a list has.
pub(super) fn page_size(asked: u32) -> usize {
    let size = match asked {
        0 => PAGE_DEFAULT,
        asked => asked.min(PAGE_MAX),
    };
    size as usize
}
