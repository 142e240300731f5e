//! A caller's connection to the gateway, and executions followed to their end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request;
use cofferdam_proto::gateway::v1::execution_request::Place;
use cofferdam_proto::gateway::v1::gateway_client::GatewayClient;
use cofferdam_proto::gateway::v1::{
    CreateSandboxRequest, DeleteSandboxRequest, ExecuteEvent, ExecuteRequest, Execution,
    ExecutionRequest, ExecutionState, ListSandboxesRequest, Sandbox, SandboxRequest, SandboxState,
    StartExecution, Stdin, StdinEof,
};
use cofferdam_proto::{FRAME_BYTES_MAX, PIECE_BYTES_MAX};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

pub(crate) type Client = GatewayClient<Channel>;

/// As the CLI has them.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Of a stream that its reader leaves alone.
const STALLED_WINDOW_BYTES: u32 = 64 << 10;

/// Should a run be killed, its sandboxes end by themselves.
const LIFETIME_MS: u64 = 30 * 60 * 1000;
/// Of anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
const STDIN_PIECES_WAITING: usize = 8;

/// A connection of its own.
pub(crate) fn connect(socket: &Path) -> Client {
    connect_with(socket, STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES)
}

/// A connection on which many streams can be left unread.
pub(crate) fn connect_for_stalled(socket: &Path, streams: usize) -> Client {
    let all = STALLED_WINDOW_BYTES * u32::try_from(streams + 4).unwrap_or(1024);
    connect_with(socket, STALLED_WINDOW_BYTES, all)
}

fn connect_with(socket: &Path, stream_window: u32, connection_window: u32) -> Client {
    let socket = socket.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let channel = Endpoint::from_static("http://gateway.cofferdam")
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_frame_size(FRAME_BYTES_MAX)
        .connect_with_connector_lazy(connector);
    GatewayClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) async fn create_sandbox(client: &mut Client, request: SandboxRequest) -> Result<String> {
    let request = CreateSandboxRequest {
        sandbox: Some(request),
        wait: true,
        idempotency_key: String::new(),
    };
    let response = timeout(PATIENCE, client.create_sandbox(request))
        .await
        .context("create a sandbox: no answer")?
        .context("create a sandbox")?;
    let sandbox = response.into_inner().sandbox.unwrap_or_default();
    if sandbox.state() != SandboxState::Ready {
        bail!(
            "the sandbox is not ready: {} {}",
            sandbox.reason,
            sandbox.message
        );
    }
    Ok(sandbox.sandbox_id)
}

/// What every sandbox of a benchmark has.
pub(crate) fn sandbox_request() -> SandboxRequest {
    SandboxRequest {
        lifetime_ms: LIFETIME_MS,
        ..SandboxRequest::default()
    }
}

pub(crate) async fn delete_sandbox(client: &mut Client, sandbox: &str) -> Result<()> {
    let request = DeleteSandboxRequest {
        sandbox: sandbox.to_owned(),
        wait: true,
        allow_missing: true,
    };
    timeout(PATIENCE, client.delete_sandbox(request))
        .await
        .context("delete a sandbox: no answer")?
        .with_context(|| format!("delete {sandbox}"))?;
    Ok(())
}

/// Deletes every sandbox there is, several at a time.
pub(crate) async fn delete_all(client: &mut Client) -> Result<()> {
    const AT_A_TIME: usize = 16;
    let ids: Vec<String> = sandboxes(client)
        .await?
        .into_iter()
        .map(|sandbox| sandbox.sandbox_id)
        .collect();
    for some in ids.chunks(AT_A_TIME) {
        let mut deletes = JoinSet::new();
        for id in some {
            let (mut client, id) = (client.clone(), id.clone());
            deletes.spawn(async move { delete_sandbox(&mut client, &id).await });
        }
        while let Some(deleted) = deletes.join_next().await {
            deleted??;
        }
    }
    Ok(())
}

pub(crate) async fn sandboxes(client: &mut Client) -> Result<Vec<Sandbox>> {
    let request = ListSandboxesRequest::default();
    let response = client
        .list_sandboxes(request)
        .await
        .context("list sandboxes")?;
    Ok(response.into_inner().sandboxes)
}

/// Waits until no sandbox is left; returns how long that took.
pub(crate) async fn until_empty(client: &mut Client) -> Result<Duration> {
    let start = Instant::now();
    while !sandboxes(client).await?.is_empty() {
        if start.elapsed() > PATIENCE {
            bail!("sandboxes are still there after {PATIENCE:?}");
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(start.elapsed())
}

pub(crate) fn in_sandbox(sandbox: &str, argv: &[&str]) -> ExecutionRequest {
    request(Place::Sandbox(sandbox.to_owned()), argv)
}

pub(crate) fn one_shot(argv: &[&str]) -> ExecutionRequest {
    request(Place::OneShot(sandbox_request()), argv)
}

fn request(place: Place, argv: &[&str]) -> ExecutionRequest {
    ExecutionRequest {
        place: Some(place),
        argv: argv
            .iter()
            .map(|word| Bytes::copy_from_slice(word.as_bytes()))
            .collect(),
        ..ExecutionRequest::default()
    }
}

/// How an execution ended, and how much it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) execution: Execution,
    pub(crate) output_bytes: u64,
    /// The first of it.
    pub(crate) output: Vec<u8>,
}

/// Runs a command to its end and drains its output. Anything but success is an error.
pub(crate) async fn execute(client: &mut Client, request: ExecutionRequest) -> Result<Ended> {
    let response = client.execute(tokio_stream::once(start(request))).await;
    drain(response.context("execute")?.into_inner()).await
}

/// As `execute`, with so many zero bytes for its stdin.
pub(crate) async fn execute_with_stdin(
    client: &mut Client,
    mut request: ExecutionRequest,
    stdin_bytes: u64,
) -> Result<Ended> {
    request.stdin = true;
    let (requests, receiver) = mpsc::channel(STDIN_PIECES_WAITING);
    requests.send(start(request)).await?;
    let feed = async move {
        let zeros = Bytes::from(vec![0; PIECE_BYTES_MAX]);
        let mut offset = 0;
        while offset < stdin_bytes {
            let length = (stdin_bytes - offset).min(PIECE_BYTES_MAX as u64);
            let data = zeros.slice(..usize::try_from(length)?);
            requests
                .send(ask(Request::Stdin(Stdin { offset, data })))
                .await?;
            offset += length;
        }
        requests
            .send(ask(Request::StdinEof(StdinEof { offset })))
            .await?;
        // Held open until the end, as a caller would who may still want to send a signal.
        requests.closed().await;
        anyhow::Ok(())
    };
    let follow = async {
        let response = client.execute(ReceiverStream::new(receiver)).await;
        drain(response.context("execute")?.into_inner()).await
    };
    tokio::pin!(follow);
    tokio::select! {
        ended = &mut follow => ended,
        // Closed by the end, which is still to come on the other half, or by what went wrong there.
        fed = feed => match follow.await {
            Ok(ended) => fed.context("send stdin").map(|()| ended),
            failed => failed,
        },
    }
}

/// Starts a command, waits for its first output, and hands the stream over unread.
pub(crate) async fn start_unread(
    client: &mut Client,
    request: ExecutionRequest,
) -> Result<Streaming<ExecuteEvent>> {
    let response = client.execute(tokio_stream::once(start(request))).await;
    let mut events = response.context("execute")?.into_inner();
    let first = async {
        while let Some(event) = events.message().await? {
            match event.event {
                Some(Event::Output(_)) => return Ok(()),
                Some(Event::Finished(execution)) => bail!("it ended: {}", execution.message),
                _ => {}
            }
        }
        bail!("its stream ended before any output")
    };
    timeout(PATIENCE, first).await.context("no output came")??;
    Ok(events)
}

fn start(request: ExecutionRequest) -> ExecuteRequest {
    ask(Request::Start(StartExecution {
        execution: Some(request),
        idempotency_key: String::new(),
    }))
}

fn ask(request: Request) -> ExecuteRequest {
    ExecuteRequest {
        request: Some(request),
    }
}

async fn drain(mut events: Streaming<ExecuteEvent>) -> Result<Ended> {
    const KEPT_BYTES: usize = 4096;
    let (mut output_bytes, mut output) = (0, Vec::new());
    while let Some(event) = events.message().await.context("follow an execution")? {
        match event.event {
            Some(Event::Output(piece)) => {
                output_bytes += piece.data.len() as u64;
                let kept = piece.data.len().min(KEPT_BYTES - output.len());
                output.extend_from_slice(&piece.data[..kept]);
            }
            Some(Event::Gap(gap)) => bail!("{} bytes of output are missing", gap.length),
            Some(Event::Finished(execution)) => {
                succeeded(&execution)?;
                return Ok(Ended {
                    execution,
                    output_bytes,
                    output,
                });
            }
            _ => {}
        }
    }
    bail!("the stream of an execution ended without its end")
}

pub(crate) fn succeeded(execution: &Execution) -> Result<()> {
    if execution.state() != ExecutionState::ExecutionSucceeded {
        bail!(
            "{} ended as {:?} ({:?}): {}",
            execution.execution_id,
            execution.state(),
            execution.reason(),
            execution.message
        );
    }
    Ok(())
}
