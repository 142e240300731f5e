//! A gateway that does what a test tells it to, on a real Unix socket.

use std::collections::VecDeque;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request as Asked;
use cofferdam_proto::gateway::v1::gateway_server::{Gateway, GatewayServer};
use cofferdam_proto::gateway::v1::*;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

type Answer<Q, A> = Mutex<Option<Box<dyn FnMut(Q) -> Result<A, Status> + Send>>>;
type Acts<C> = Mutex<VecDeque<Box<dyn FnOnce(C) -> Act + Send>>>;
type Act = Pin<Box<dyn Future<Output = ()> + Send>>;
type Out<T> = ReceiverStream<Result<T, Status>>;

const QUEUE: usize = 64;

pub(crate) struct Fake {
    dir: tempfile::TempDir,
    script: Arc<Script>,
    runtime: Option<Runtime>,
}

/// One stream of `Execute`, as the server sees it.
pub(crate) struct ExecuteCall {
    requests: Streaming<ExecuteRequest>,
    events: mpsc::Sender<Result<ExecuteEvent, Status>>,
}

/// One stream of `ReadOutput`.
pub(crate) struct OutputCall {
    pub(crate) request: ReadOutputRequest,
    events: mpsc::Sender<Result<ExecuteEvent, Status>>,
}

/// One stream of `Forward`.
pub(crate) struct ForwardCall {
    requests: Streaming<ForwardRequest>,
    events: mpsc::Sender<Result<ForwardResponse, Status>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Arc::new(Script::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let fake = Self {
            dir,
            script,
            runtime: Some(runtime),
        };
        fake.serve();
        fake
    }

    /// Binds the socket and serves; again after `stop`.
    fn serve(&self) {
        let runtime = self.runtime.as_ref().unwrap();
        let _ = std::fs::remove_file(self.socket());
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(self.socket()).unwrap()
        };
        let server = GatewayServer::new(Server(self.script.clone()));
        runtime.spawn(
            tonic::transport::Server::builder()
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(16 << 20)
                .max_frame_size(128 << 10)
                .add_service(server)
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
    }

    /// Everything is gone at once, as if it had been killed; the socket file stays.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Comes back on the same socket, with what is left of its script.
    pub(crate) fn revive(&mut self) {
        self.runtime = Some(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
        );
        self.serve();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("gateway.sock")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What happens on the next stream of `Execute` that has no script yet.
    pub(crate) fn on_execute<F: Future<Output = ()> + Send + 'static>(
        &self,
        act: impl FnOnce(ExecuteCall) -> F + Send + 'static,
    ) -> &Self {
        push(&self.script.execute, act);
        self
    }

    pub(crate) fn on_read_output<F: Future<Output = ()> + Send + 'static>(
        &self,
        act: impl FnOnce(OutputCall) -> F + Send + 'static,
    ) -> &Self {
        push(&self.script.read_output, act);
        self
    }

    pub(crate) fn on_forward<F: Future<Output = ()> + Send + 'static>(
        &self,
        act: impl FnOnce(ForwardCall) -> F + Send + 'static,
    ) -> &Self {
        push(&self.script.forward, act);
        self
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

fn push<C, F: Future<Output = ()> + Send + 'static>(
    acts: &Acts<C>,
    act: impl FnOnce(C) -> F + Send + 'static,
) {
    acts.lock()
        .unwrap()
        .push_back(Box::new(move |call| Box::pin(act(call))));
}

impl ExecuteCall {
    /// The next request; a panic if the client has ended the stream instead.
    pub(crate) async fn asked(&mut self) -> Asked {
        self.try_asked().await.expect("the client left")
    }

    /// None: the client has left.
    pub(crate) async fn try_asked(&mut self) -> Option<Asked> {
        self.requests.message().await.ok()??.request
    }

    pub(crate) async fn started(&mut self) -> StartExecution {
        match self.asked().await {
            Asked::Start(start) => start,
            other => panic!("not a start: {other:?}"),
        }
    }

    pub(crate) async fn attached(&mut self) -> AttachExecution {
        match self.asked().await {
            Asked::Attach(attach) => attach,
            other => panic!("not an attach: {other:?}"),
        }
    }

    pub(crate) async fn send(&self, event: Event) {
        // The client may have left.
        let _ = self
            .events
            .send(Ok(ExecuteEvent { event: Some(event) }))
            .await;
    }

    pub(crate) async fn accept(&self, execution: Execution, stdin_offset: u64) {
        self.send(Event::Accepted(Accepted {
            execution: Some(execution),
            stdin_offset,
            stdin_received: stdin_offset,
        }))
        .await;
    }

    pub(crate) async fn output(&self, offset: u64, stream: OutputStream, data: impl Into<Bytes>) {
        self.send(output(offset, stream, data)).await;
    }

    pub(crate) async fn fail(&self, status: Status) {
        let _ = self.events.send(Err(status)).await;
    }

    /// Start, accept, running: what most scripts begin with.
    pub(crate) async fn begin(&mut self) -> StartExecution {
        let start = self.started().await;
        self.accept(running(), 0).await;
        start
    }
}

impl OutputCall {
    pub(crate) async fn send(&self, event: Event) {
        let _ = self
            .events
            .send(Ok(ExecuteEvent { event: Some(event) }))
            .await;
    }

    pub(crate) async fn fail(&self, status: Status) {
        let _ = self.events.send(Err(status)).await;
    }
}

impl ForwardCall {
    pub(crate) async fn opened(&mut self) -> ForwardOpen {
        match self.requests.message().await.unwrap().unwrap().part {
            Some(forward_request::Part::Open(open)) => open,
            other => panic!("not an open: {other:?}"),
        }
    }

    pub(crate) async fn accept(&self) {
        self.send(forward_response::Part::Opened(ForwardOpened {}))
            .await;
    }

    /// None: the client has closed its half.
    pub(crate) async fn data(&mut self) -> Option<Bytes> {
        match self.requests.message().await.ok()??.part {
            Some(forward_request::Part::Data(data)) => Some(data),
            other => panic!("not data: {other:?}"),
        }
    }

    pub(crate) async fn send(&self, part: forward_response::Part) {
        let _ = self
            .events
            .send(Ok(ForwardResponse { part: Some(part) }))
            .await;
    }

    pub(crate) async fn fail(&self, status: Status) {
        let _ = self.events.send(Err(status)).await;
    }
}

pub(crate) fn output(offset: u64, stream: OutputStream, data: impl Into<Bytes>) -> Event {
    Event::Output(Output {
        offset,
        stream: stream as i32,
        data: data.into(),
    })
}

/// `exec-1` in `sbx-1`, running.
pub(crate) fn running() -> Execution {
    Execution {
        execution_id: "exec-1".into(),
        sandbox_id: "sbx-1".into(),
        one_shot: true,
        state: ExecutionState::ExecutionRunning as i32,
        argv: vec![Bytes::from_static(b"true")],
        driver: "process".into(),
        ..Execution::default()
    }
}

pub(crate) fn exited(code: i32) -> Execution {
    Execution {
        state: if code == 0 {
            ExecutionState::ExecutionSucceeded as i32
        } else {
            ExecutionState::ExecutionFailed as i32
        },
        reason: ExecutionReason::ReasonExited as i32,
        exit_code: Some(code),
        ..running()
    }
}

pub(crate) fn ended(state: ExecutionState, reason: ExecutionReason) -> Execution {
    Execution {
        state: state as i32,
        reason: reason as i32,
        ..running()
    }
}

struct Server(Arc<Script>);

impl Server {
    fn stream<C, T>(
        acts: &Acts<C>,
        make: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> C,
    ) -> Result<Response<Out<T>>, Status> {
        let act = acts.lock().unwrap().pop_front();
        let act = act.ok_or_else(|| Status::unimplemented("no script for this stream"))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(act(make(sender)));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn answer<Q, A>(script: &Answer<Q, A>, request: Q) -> Result<Response<A>, Status> {
    match script.lock().unwrap().as_mut() {
        Some(answer) => answer(request).map(Response::new),
        None => Err(Status::unimplemented("no script for this call")),
    }
}

fn all<Q, T: Send + 'static>(
    script: &Answer<Q, Vec<Result<T, Status>>>,
    request: Q,
) -> Result<Response<Out<T>>, Status> {
    let parts = answer(script, request)?.into_inner();
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        for part in parts {
            if sender.send(part).await.is_err() {
                return;
            }
        }
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

async fn collect<T>(request: Request<Streaming<T>>) -> Result<Vec<T>, Status> {
    let mut stream = request.into_inner();
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await? {
        parts.push(part);
    }
    Ok(parts)
}

macro_rules! gateway {
    (
        unary { $($unary:ident, $on_unary:ident: $uq:ty => $ua:ty;)* }
        server { $($server:ident, $on_server:ident, $assoc:ident: $sq:ty => $sa:ty;)* }
        client { $($client:ident, $on_client:ident: $cq:ty => $ca:ty;)* }
    ) => {
        #[derive(Default)]
        struct Script {
            execute: Acts<ExecuteCall>,
            read_output: Acts<OutputCall>,
            forward: Acts<ForwardCall>,
            $($unary: Answer<$uq, $ua>,)*
            $($server: Answer<$sq, Vec<Result<$sa, Status>>>,)*
            $($client: Answer<Vec<$cq>, $ca>,)*
        }

        #[allow(dead_code, reason = "one for each call of the contract")]
        impl Fake {
            $(pub(crate) fn $on_unary(&self, answer: impl FnMut($uq) -> Result<$ua, Status> + Send + 'static) -> &Self {
                *self.script.$unary.lock().unwrap() = Some(Box::new(answer));
                self
            })*
            $(pub(crate) fn $on_server(&self, answer: impl FnMut($sq) -> Result<Vec<Result<$sa, Status>>, Status> + Send + 'static) -> &Self {
                *self.script.$server.lock().unwrap() = Some(Box::new(answer));
                self
            })*
            $(pub(crate) fn $on_client(&self, answer: impl FnMut(Vec<$cq>) -> Result<$ca, Status> + Send + 'static) -> &Self {
                *self.script.$client.lock().unwrap() = Some(Box::new(answer));
                self
            })*
        }

        #[tonic::async_trait]
        impl Gateway for Server {
            type ExecuteStream = Out<ExecuteEvent>;
            type ReadOutputStream = Out<ExecuteEvent>;
            type ForwardStream = Out<ForwardResponse>;
            $(type $assoc = Out<$sa>;)*

            async fn execute(&self, request: Request<Streaming<ExecuteRequest>>) -> Result<Response<Self::ExecuteStream>, Status> {
                let requests = request.into_inner();
                Self::stream(&self.0.execute, |events| ExecuteCall { requests, events })
            }
            async fn read_output(&self, request: Request<ReadOutputRequest>) -> Result<Response<Self::ReadOutputStream>, Status> {
                let request = request.into_inner();
                Self::stream(&self.0.read_output, |events| OutputCall { request, events })
            }
            async fn forward(&self, request: Request<Streaming<ForwardRequest>>) -> Result<Response<Self::ForwardStream>, Status> {
                let requests = request.into_inner();
                Self::stream(&self.0.forward, |events| ForwardCall { requests, events })
            }
            $(async fn $unary(&self, request: Request<$uq>) -> Result<Response<$ua>, Status> {
                answer(&self.0.$unary, request.into_inner())
            })*
            $(async fn $server(&self, request: Request<$sq>) -> Result<Response<Self::$assoc>, Status> {
                all(&self.0.$server, request.into_inner())
            })*
            $(async fn $client(&self, request: Request<Streaming<$cq>>) -> Result<Response<$ca>, Status> {
                let parts = collect(request).await?;
                answer(&self.0.$client, parts)
            })*
        }
    };
}

gateway! {
    unary {
        get_info, on_get_info: GetInfoRequest => GetInfoResponse;
        create_sandbox, on_create_sandbox: CreateSandboxRequest => CreateSandboxResponse;
        get_sandbox, on_get_sandbox: GetSandboxRequest => GetSandboxResponse;
        list_sandboxes, on_list_sandboxes: ListSandboxesRequest => ListSandboxesResponse;
        stop_sandbox, on_stop_sandbox: StopSandboxRequest => StopSandboxResponse;
        start_sandbox, on_start_sandbox: StartSandboxRequest => StartSandboxResponse;
        delete_sandbox, on_delete_sandbox: DeleteSandboxRequest => DeleteSandboxResponse;
        create_execution, on_create_execution: CreateExecutionRequest => CreateExecutionResponse;
        get_execution, on_get_execution: GetExecutionRequest => GetExecutionResponse;
        list_executions, on_list_executions: ListExecutionsRequest => ListExecutionsResponse;
        cancel_execution, on_cancel_execution: CancelExecutionRequest => CancelExecutionResponse;
        signal_execution, on_signal_execution: SignalExecutionRequest => SignalExecutionResponse;
        stat_file, on_stat_file: StatFileRequest => StatFileResponse;
        sandbox_stats, on_sandbox_stats: SandboxStatsRequest => SandboxStatsResponse;
        list_drivers, on_list_drivers: ListDriversRequest => ListDriversResponse;
        get_driver, on_get_driver: GetDriverRequest => GetDriverResponse;
    }
    server {
        watch_sandbox, on_watch_sandbox, WatchSandboxStream: WatchSandboxRequest => WatchSandboxResponse;
        read_file, on_read_file, ReadFileStream: ReadFileRequest => ReadFileResponse;
        read_archive, on_read_archive, ReadArchiveStream: ReadArchiveRequest => ArchiveChunk;
        read_console, on_read_console, ReadConsoleStream: ReadConsoleRequest => ReadConsoleResponse;
    }
    client {
        write_file, on_write_file: WriteFileRequest => WriteFileResponse;
        write_archive, on_write_archive: WriteArchiveRequest => WriteArchiveResponse;
    }
}
