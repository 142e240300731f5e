//! A driver with scripted faults, served over a real Unix socket.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use cofferdam_proto::compute::v1 as wire;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, pending};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::{Request, Response, Status};
use wire::compute_driver_server::{ComputeDriver, ComputeDriverServer};
use wire::watch_sandboxes_response::Event;

type Stream<T> = BoxStream<'static, Result<T, Status>>;
type Answer<T> = Result<Response<T>, Status>;

/// What the driver does and what was asked of it.
pub(super) struct Script {
    pub(super) handshake: Mutex<wire::HandshakeResponse>,
    pub(super) fingerprint: watch::Sender<wire::FingerprintResponse>,
    pub(super) sandboxes: Mutex<BTreeMap<String, wire::Sandbox>>,
    /// RPCs that never answer.
    hanging: Mutex<HashSet<&'static str>>,
    /// Statuses that RPCs answer first, in order.
    failing: Mutex<HashMap<&'static str, VecDeque<Status>>>,
    calls: Mutex<Vec<&'static str>>,
    configured: Mutex<Option<prost_types::Struct>>,
    /// Takes over watches from the driver.
    pub(super) watches: Mutex<Option<mpsc::Sender<OpenWatch>>>,
}

/// A WatchSandboxes call that a test answers.
pub(super) struct OpenWatch {
    pub(super) cursor: String,
    pub(super) events: mpsc::Sender<Result<wire::WatchSandboxesResponse, Status>>,
}

impl OpenWatch {
    pub(super) async fn tell(&self, cursor: &str, event: Event) {
        let cursor = cursor.to_owned();
        let event = Some(event);
        let message = wire::WatchSandboxesResponse { cursor, event };
        self.events.send(Ok(message)).await.unwrap();
    }

    pub(super) async fn synced(&self, cursor: &str, incarnation: &str) {
        let incarnation = incarnation.to_owned();
        let synced = true;
        self.tell(
            cursor,
            Event::Bookmark(wire::Bookmark {
                synced,
                incarnation,
            }),
        )
        .await;
    }
}

pub(super) fn sandbox(id: &str) -> wire::Sandbox {
    wire::Sandbox {
        sandbox_id: id.to_owned(),
        state: wire::SandboxState::Running as i32,
        ..Default::default()
    }
}

impl Script {
    pub(super) fn new() -> Arc<Self> {
        let handshake = wire::HandshakeResponse {
            contract: Some(wire::VersionRange { min: 1, max: 1 }),
            chosen: 1,
            name: "fake".to_owned(),
            version: "0.9.0".to_owned(),
            incarnation: "incarnation-1".to_owned(),
            capabilities: Some(wire::Capabilities {
                execution: wire::Execution::Supervised as i32,
                ..Default::default()
            }),
            description: "a fake".to_owned(),
            ..Default::default()
        };
        let healthy = wire::FingerprintResponse {
            health: wire::Health::Healthy as i32,
            ..Default::default()
        };
        Arc::new(Self {
            handshake: Mutex::new(handshake),
            fingerprint: watch::Sender::new(healthy),
            sandboxes: Mutex::default(),
            hanging: Mutex::default(),
            failing: Mutex::default(),
            calls: Mutex::default(),
            configured: Mutex::default(),
            watches: Mutex::default(),
        })
    }

    pub(super) fn handshake(&self) -> MutexGuard<'_, wire::HandshakeResponse> {
        self.handshake.lock().unwrap()
    }

    pub(super) fn hang(&self, rpc: &'static str) {
        self.hanging.lock().unwrap().insert(rpc);
    }

    pub(super) fn answer_again(&self, rpc: &'static str) {
        self.hanging.lock().unwrap().remove(rpc);
    }

    pub(super) fn fail(&self, rpc: &'static str, status: Status) {
        let mut failing = self.failing.lock().unwrap();
        failing.entry(rpc).or_default().push_back(status);
    }

    /// How often it was called.
    pub(super) fn count(&self, rpc: &str) -> usize {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .filter(|call| **call == rpc)
            .count()
    }

    pub(super) fn configured(&self) -> Option<prost_types::Struct> {
        self.configured.lock().unwrap().clone()
    }

    /// Watches go to the test from now on.
    pub(super) fn take_watches(&self) -> mpsc::Receiver<OpenWatch> {
        let (sender, receiver) = mpsc::channel(8);
        *self.watches.lock().unwrap() = Some(sender);
        receiver
    }

    /// Every RPC begins here.
    async fn enter(&self, rpc: &'static str) -> Result<(), Status> {
        self.calls.lock().unwrap().push(rpc);
        if self.hanging.lock().unwrap().contains(rpc) {
            std::future::pending::<()>().await;
        }
        let failure = self
            .failing
            .lock()
            .unwrap()
            .get_mut(rpc)
            .and_then(VecDeque::pop_front);
        failure.map_or(Ok(()), Err)
    }

    fn find(&self, id: &str) -> Result<Option<wire::Sandbox>, Status> {
        let sandbox = self.sandboxes.lock().unwrap().get(id).cloned();
        sandbox
            .map(Some)
            .ok_or_else(|| Status::not_found(id.to_owned()))
    }
}

/// A served script. Dropping it is the driver's crash.
pub(super) struct FakeDriver {
    _tasks: JoinSet<()>,
}

impl FakeDriver {
    /// Binds the socket anew, as a restarted driver does.
    pub(super) fn serve(script: &Arc<Script>, socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        Self::serve_on(script, UnixListener::bind(socket).unwrap())
    }

    pub(super) fn serve_on(script: &Arc<Script>, listener: UnixListener) -> Self {
        let service = ComputeDriverServer::new(Service(script.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { drop(connection.await) });
            }
        });
        Self { _tasks: tasks }
    }
}

/// A directory that only its owner can enter, with a socket's path in it.
pub(super) fn socket_path() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("driver.sock");
    (directory, path)
}

struct Service(Arc<Script>);

#[tonic::async_trait]
impl ComputeDriver for Service {
    type FingerprintStream = Stream<wire::FingerprintResponse>;
    type PrepareImageStream = Stream<wire::PrepareImageResponse>;
    type WatchSandboxesStream = Stream<wire::WatchSandboxesResponse>;
    type ReadConsoleStream = Stream<wire::ReadConsoleResponse>;
    type SandboxStatsStream = Stream<wire::SandboxStatsResponse>;
    type RunCommandStream = Stream<wire::RunCommandResponse>;

    async fn handshake(
        &self,
        _: Request<wire::HandshakeRequest>,
    ) -> Answer<wire::HandshakeResponse> {
        self.0.enter("Handshake").await?;
        Ok(Response::new(self.0.handshake().clone()))
    }

    async fn configure(
        &self,
        request: Request<wire::ConfigureRequest>,
    ) -> Answer<wire::ConfigureResponse> {
        self.0.enter("Configure").await?;
        *self.0.configured.lock().unwrap() = request.into_inner().settings;
        Ok(Response::new(wire::ConfigureResponse::default()))
    }

    async fn fingerprint(
        &self,
        _: Request<wire::FingerprintRequest>,
    ) -> Answer<Self::FingerprintStream> {
        self.0.enter("Fingerprint").await?;
        let changes = WatchStream::new(self.0.fingerprint.subscribe());
        Ok(Response::new(changes.map(Ok).boxed()))
    }

    async fn validate_sandbox(
        &self,
        _: Request<wire::ValidateSandboxRequest>,
    ) -> Answer<wire::ValidateSandboxResponse> {
        self.0.enter("ValidateSandbox").await?;
        let violations = ["limits.pids", "gpus"].map(|field| wire::FieldViolation {
            field: field.to_owned(),
            message: "no".to_owned(),
        });
        let violations = violations.to_vec();
        Ok(Response::new(wire::ValidateSandboxResponse { violations }))
    }

    async fn prepare_image(
        &self,
        _: Request<wire::PrepareImageRequest>,
    ) -> Answer<Self::PrepareImageStream> {
        Err(Status::unimplemented("PrepareImage"))
    }

    async fn create_sandbox(
        &self,
        request: Request<wire::CreateSandboxRequest>,
    ) -> Answer<wire::CreateSandboxResponse> {
        let id = request.into_inner().sandbox_id;
        let made = sandbox(&id);
        // Takes effect before it fails or hangs: the worst case.
        self.0.sandboxes.lock().unwrap().insert(id, made.clone());
        self.0.enter("CreateSandbox").await?;
        let handle = wire::Handle {
            version: 3,
            data: b"handle".to_vec().into(),
        };
        Ok(Response::new(wire::CreateSandboxResponse {
            handle: Some(handle),
            sandbox: Some(made),
        }))
    }

    async fn recover_sandboxes(
        &self,
        request: Request<wire::RecoverSandboxesRequest>,
    ) -> Answer<wire::RecoverSandboxesResponse> {
        use wire::recover_sandboxes_response::{Outcome, Result};
        self.0.enter("RecoverSandboxes").await?;
        let sandboxes = self.0.sandboxes.lock().unwrap().clone();
        let answer = |id: String| {
            let sandbox = sandboxes.get(&id).cloned();
            let outcome = match sandbox {
                Some(_) => Outcome::Recovered,
                None => Outcome::Gone,
            };
            Result {
                sandbox_id: id,
                outcome: outcome as i32,
                sandbox,
                ..Default::default()
            }
        };
        let items = request.into_inner().items.into_iter();
        // In the wrong order, and one answer is missing.
        let results = items.rev().map(|item| answer(item.sandbox_id));
        let results = results
            .filter(|result| result.sandbox_id != "sbx-forgotten")
            .collect();
        Ok(Response::new(wire::RecoverSandboxesResponse { results }))
    }

    async fn start_sandbox(
        &self,
        request: Request<wire::StartSandboxRequest>,
    ) -> Answer<wire::StartSandboxResponse> {
        self.0.enter("StartSandbox").await?;
        let sandbox = self.0.find(&request.into_inner().sandbox_id)?;
        Ok(Response::new(wire::StartSandboxResponse { sandbox }))
    }

    async fn stop_sandbox(
        &self,
        request: Request<wire::StopSandboxRequest>,
    ) -> Answer<wire::StopSandboxResponse> {
        self.0.enter("StopSandbox").await?;
        let sandbox = self.0.find(&request.into_inner().sandbox_id)?;
        Ok(Response::new(wire::StopSandboxResponse { sandbox }))
    }

    async fn delete_sandbox(
        &self,
        request: Request<wire::DeleteSandboxRequest>,
    ) -> Answer<wire::DeleteSandboxResponse> {
        self.0.enter("DeleteSandbox").await?;
        self.0
            .sandboxes
            .lock()
            .unwrap()
            .remove(&request.into_inner().sandbox_id);
        Ok(Response::new(wire::DeleteSandboxResponse {}))
    }

    async fn get_sandbox(
        &self,
        request: Request<wire::GetSandboxRequest>,
    ) -> Answer<wire::GetSandboxResponse> {
        self.0.enter("GetSandbox").await?;
        let sandbox = self.0.find(&request.into_inner().sandbox_id)?;
        Ok(Response::new(wire::GetSandboxResponse { sandbox }))
    }

    async fn list_sandboxes(
        &self,
        request: Request<wire::ListSandboxesRequest>,
    ) -> Answer<wire::ListSandboxesResponse> {
        self.0.enter("ListSandboxes").await?;
        // One sandbox a page.
        let after = request.into_inner().page_token;
        let sandboxes = self.0.sandboxes.lock().unwrap();
        let mut rest = sandboxes
            .range(after.clone()..)
            .filter(|(id, _)| **id != after);
        let page = rest.next().map(|(_, sandbox)| sandbox.clone());
        let last = rest.next().is_none();
        Ok(Response::new(wire::ListSandboxesResponse {
            next_page_token: match &page {
                Some(sandbox) if !last => sandbox.sandbox_id.clone(),
                _ => String::new(),
            },
            sandboxes: page.into_iter().collect(),
            complete: last,
            incarnation: self.0.handshake().incarnation.clone(),
        }))
    }

    async fn watch_sandboxes(
        &self,
        request: Request<wire::WatchSandboxesRequest>,
    ) -> Answer<Self::WatchSandboxesStream> {
        self.0.enter("WatchSandboxes").await?;
        let (events, stream) = mpsc::channel(64);
        let watch = OpenWatch {
            cursor: request.into_inner().cursor,
            events,
        };
        let taken = self.0.watches.lock().unwrap().clone();
        if let Some(taken) = taken {
            taken.send(watch).await.unwrap();
            return Ok(Response::new(ReceiverStream::new(stream).boxed()));
        }
        let sandboxes = self.0.sandboxes.lock().unwrap().clone();
        for sandbox in sandboxes.into_values() {
            watch.tell("", Event::Snapshot(sandbox)).await;
        }
        let incarnation = self.0.handshake().incarnation.clone();
        watch.synced("c1", &incarnation).await;
        Ok(Response::new(
            ReceiverStream::new(stream).chain(pending()).boxed(),
        ))
    }

    async fn read_console(
        &self,
        _: Request<wire::ReadConsoleRequest>,
    ) -> Answer<Self::ReadConsoleStream> {
        self.0.enter("ReadConsole").await?;
        let lines = ["one\n", "two\n"].map(|line| {
            let data = line.as_bytes().into();
            Ok(wire::ReadConsoleResponse { data })
        });
        Ok(Response::new(futures_util::stream::iter(lines).boxed()))
    }

    async fn sandbox_stats(
        &self,
        _: Request<wire::SandboxStatsRequest>,
    ) -> Answer<Self::SandboxStatsStream> {
        self.0.enter("SandboxStats").await?;
        let stats = wire::SandboxStatsResponse {
            pids: Some(4),
            ..Default::default()
        };
        Ok(Response::new(
            futures_util::stream::iter([Ok(stats)]).boxed(),
        ))
    }

    async fn run_command(
        &self,
        _: Request<wire::RunCommandRequest>,
    ) -> Answer<Self::RunCommandStream> {
        Err(Status::unimplemented("RunCommand"))
    }

    async fn pause_sandbox(
        &self,
        _: Request<wire::PauseSandboxRequest>,
    ) -> Answer<wire::PauseSandboxResponse> {
        Err(Status::unimplemented("PauseSandbox"))
    }

    async fn resume_sandbox(
        &self,
        _: Request<wire::ResumeSandboxRequest>,
    ) -> Answer<wire::ResumeSandboxResponse> {
        Err(Status::unimplemented("ResumeSandbox"))
    }

    async fn snapshot_sandbox(
        &self,
        _: Request<wire::SnapshotSandboxRequest>,
    ) -> Answer<wire::SnapshotSandboxResponse> {
        Err(Status::unimplemented("SnapshotSandbox"))
    }

    async fn restore_sandbox(
        &self,
        _: Request<wire::RestoreSandboxRequest>,
    ) -> Answer<wire::RestoreSandboxResponse> {
        Err(Status::unimplemented("RestoreSandbox"))
    }

    async fn delete_snapshot(
        &self,
        _: Request<wire::DeleteSnapshotRequest>,
    ) -> Answer<wire::DeleteSnapshotResponse> {
        Err(Status::unimplemented("DeleteSnapshot"))
    }
}
