//! The RPCs, one method each.

use cofferdam_proto::compute::v1 as wire;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Client, Driver, timed};
use crate::answer::Refused;
use crate::case::Stop;

/// `method: "Rpc" = client_method(Request) -> Response;`
macro_rules! unary {
    ($($name:ident: $rpc:literal = $method:ident($request:ident) -> $response:ident;)*) => {
        impl Driver {
            $(pub(crate) async fn $name(
                &self,
                request: wire::$request,
            ) -> Result<wire::$response, Refused> {
                let send = |mut client: Client, request| async move { client.$method(request).await };
                self.call($rpc, request, send).await
            })*
        }
    };
}

unary! {
    handshake: "Handshake" = handshake(HandshakeRequest) -> HandshakeResponse;
    configure_with: "Configure" = configure(ConfigureRequest) -> ConfigureResponse;
    validate_with: "ValidateSandbox" = validate_sandbox(ValidateSandboxRequest) -> ValidateSandboxResponse;
    create_with: "CreateSandbox" = create_sandbox(CreateSandboxRequest) -> CreateSandboxResponse;
    recover_with: "RecoverSandboxes" = recover_sandboxes(RecoverSandboxesRequest) -> RecoverSandboxesResponse;
    start_with: "StartSandbox" = start_sandbox(StartSandboxRequest) -> StartSandboxResponse;
    stop_with: "StopSandbox" = stop_sandbox(StopSandboxRequest) -> StopSandboxResponse;
    delete_with: "DeleteSandbox" = delete_sandbox(DeleteSandboxRequest) -> DeleteSandboxResponse;
    get_with: "GetSandbox" = get_sandbox(GetSandboxRequest) -> GetSandboxResponse;
    list_with: "ListSandboxes" = list_sandboxes(ListSandboxesRequest) -> ListSandboxesResponse;
    pause_with: "PauseSandbox" = pause_sandbox(PauseSandboxRequest) -> PauseSandboxResponse;
    resume_with: "ResumeSandbox" = resume_sandbox(ResumeSandboxRequest) -> ResumeSandboxResponse;
    snapshot_with: "SnapshotSandbox" = snapshot_sandbox(SnapshotSandboxRequest) -> SnapshotSandboxResponse;
    restore_with: "RestoreSandbox" = restore_sandbox(RestoreSandboxRequest) -> RestoreSandboxResponse;
    delete_snapshot_with: "DeleteSnapshot" = delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse;
}

/// As `unary`, for RPCs that answer with a stream.
macro_rules! streaming {
    ($($name:ident: $rpc:literal = $method:ident($request:ident) -> $response:ident;)*) => {
        impl Driver {
            $(pub(crate) async fn $name(
                &self,
                request: wire::$request,
            ) -> Result<Answers<wire::$response>, Refused> {
                let send = |mut client: Client, request| async move { client.$method(request).await };
                self.open($rpc, request, send).await
            })*
        }
    };
}

streaming! {
    fingerprint: "Fingerprint" = fingerprint(FingerprintRequest) -> FingerprintResponse;
    watch_with: "WatchSandboxes" = watch_sandboxes(WatchSandboxesRequest) -> WatchSandboxesResponse;
    prepare_image: "PrepareImage" = prepare_image(PrepareImageRequest) -> PrepareImageResponse;
    read_console: "ReadConsole" = read_console(ReadConsoleRequest) -> ReadConsoleResponse;
    stats: "SandboxStats" = sandbox_stats(SandboxStatsRequest) -> SandboxStatsResponse;
    run_command: "RunCommand" = run_command(RunCommandRequest) -> RunCommandResponse;
}

impl Driver {
    async fn open<M, R, F>(
        &self,
        rpc: &'static str,
        message: M,
        send: impl Fn(Client, Request<M>) -> F,
    ) -> Result<Answers<R>, Refused>
    where
        R: Message,
        F: Future<Output = Result<Response<Streaming<R>>, Status>>,
    {
        let request = timed(message, self.stream_deadline);
        let stream = self.attempt(rpc, request, &send, self.deadline).await?;
        Ok(Answers::new(self.clone(), rpc, stream))
    }

    /// Observes one sandbox.
    pub(crate) async fn get(&self, sandbox_id: &str) -> Result<wire::Sandbox, Refused> {
        let request = wire::GetSandboxRequest {
            sandbox_id: sandbox_id.to_owned(),
        };
        let sandbox = self.get_with(request).await?.sandbox.unwrap_or_default();
        self.suite.recorder().observation("GetSandbox", &sandbox);
        Ok(sandbox)
    }

    pub(crate) async fn delete(&self, sandbox_id: &str) -> Result<(), Refused> {
        let request = wire::DeleteSandboxRequest {
            sandbox_id: sandbox_id.to_owned(),
            operation_id: "op-delete".to_owned(),
        };
        self.delete_with(request).await.map(|_| ())
    }

    pub(crate) async fn stop(
        &self,
        sandbox_id: &str,
        grace_ms: u64,
    ) -> Result<wire::Sandbox, Refused> {
        let request = wire::StopSandboxRequest {
            sandbox_id: sandbox_id.to_owned(),
            grace_ms,
            operation_id: "op-stop".to_owned(),
        };
        let sandbox = self.stop_with(request).await?.sandbox.unwrap_or_default();
        self.suite.recorder().observation("StopSandbox", &sandbox);
        Ok(sandbox)
    }

    /// All pages, of this size. The last one's `complete`.
    pub(crate) async fn list(&self, page_size: u32) -> Result<(Vec<wire::Sandbox>, bool), Stop> {
        // More pages than a list of this suite's sandboxes can have.
        const PAGES_MAX: usize = 200;
        let mut request = wire::ListSandboxesRequest {
            page_size,
            page_token: String::new(),
        };
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.list_with(request.clone()).await?;
            for sandbox in &page.sandboxes {
                self.suite.recorder().observation("ListSandboxes", sandbox);
            }
            all.extend(page.sandboxes);
            if page.next_page_token.is_empty() {
                return Ok((all, page.complete));
            }
            request.page_token = page.next_page_token;
        }
        Err(Stop::failed(format!(
            "ListSandboxes has no last page: {PAGES_MAX} pages were read"
        )))
    }

    /// The ids of a list that must be complete.
    pub(crate) async fn list_ids(&self) -> Result<Vec<String>, Stop> {
        let (sandboxes, complete) = self.list(0).await?;
        if !complete {
            return Err(Stop::failed(
                "the last page of ListSandboxes is not `complete`, though the platform works",
            ));
        }
        let ids = sandboxes.into_iter().map(|sandbox| sandbox.sandbox_id);
        Ok(ids.collect())
    }
}
