//! A caller that speaks the gateway's own protocol, for what the command-line tool does not show.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request;
use cofferdam_proto::gateway::v1::execution_request::Place;
use cofferdam_proto::gateway::v1::gateway_client::GatewayClient;
use cofferdam_proto::gateway::v1::{
    AttachExecution, CreateSandboxRequest, ExecuteEvent, ExecuteRequest, Execution,
    ExecutionRequest, OutputStream, SandboxRequest, StartExecution,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

use crate::gateway::TestGateway;

pub type Client = GatewayClient<Channel>;

/// No call of a test waits longer.
const CALL_MAX: Duration = Duration::from_secs(60);

/// A connection of its own.
pub async fn connect(gateway: &TestGateway) -> Client {
    connect_to(&gateway.socket()).await
}

/// With windows that let many streams stall beside each other.
pub async fn connect_to(socket: &Path) -> Client {
    let path = socket.to_path_buf();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    let channel = Endpoint::from_static("http://gateway.test")
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(64 << 20)
        .connect_with_connector(connector)
        .await
        .expect("connect to the gateway");
    GatewayClient::new(channel)
}

/// Makes a request give up before the test does.
pub fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_MAX);
    request
}

/// Makes a sandbox that is ready; its id.
pub async fn create(client: &mut Client, sandbox: SandboxRequest) -> String {
    let wanted = CreateSandboxRequest {
        sandbox: Some(sandbox),
        wait: true,
        idempotency_key: crate::random_name(),
    };
    let made = client
        .create_sandbox(request(wanted))
        .await
        .expect("create a sandbox")
        .into_inner();
    made.sandbox.expect("a sandbox").sandbox_id
}

/// A command in a sandbox that exists.
pub fn command<A: AsRef<str>>(
    sandbox: &str,
    argv: impl IntoIterator<Item = A>,
) -> ExecutionRequest {
    ExecutionRequest {
        place: Some(Place::Sandbox(sandbox.to_owned())),
        argv: argv
            .into_iter()
            .map(|arg| Bytes::from(arg.as_ref().to_owned()))
            .collect(),
        ..ExecutionRequest::default()
    }
}

/// A command in a sandbox of its own.
pub fn one_shot<A: AsRef<str>>(
    sandbox: SandboxRequest,
    argv: impl IntoIterator<Item = A>,
) -> ExecutionRequest {
    ExecutionRequest {
        place: Some(Place::OneShot(sandbox)),
        ..command("", argv)
    }
}

/// One stream that follows an execution.
#[derive(Debug)]
pub struct Stream {
    requests: mpsc::Sender<ExecuteRequest>,
    events: Streaming<ExecuteEvent>,
    /// As it was accepted.
    pub execution: Execution,
    next_offset: u64,
    stdin_offset: u64,
    /// Of stdin, when it was accepted.
    pub stdin_received: u64,
}

/// An execution followed to its end.
#[derive(Debug)]
pub struct Followed {
    pub execution: Execution,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Stream {
    /// Starts an execution.
    pub async fn start(client: &mut Client, execution: ExecutionRequest) -> Result<Self, Status> {
        let start = StartExecution {
            execution: Some(execution),
            idempotency_key: crate::random_name(),
        };
        Self::open(client, Request::Start(start), 0).await
    }

    /// Follows one that was started elsewhere.
    pub async fn attach(client: &mut Client, id: &str, from_offset: u64) -> Result<Self, Status> {
        let attach = AttachExecution {
            execution_id: id.to_owned(),
            from_offset,
            stdin: false,
        };
        Self::open(client, Request::Attach(attach), from_offset).await
    }

    async fn open(client: &mut Client, first: Request, next_offset: u64) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(8);
        let first = ExecuteRequest {
            request: Some(first),
        };
        requests.try_send(first).expect("room for the first");
        let call = client.execute(ReceiverStream::new(receiver));
        let mut events = call.await?.into_inner();
        match next(&mut events).await? {
            Some(Event::Accepted(accepted)) => Ok(Self {
                requests,
                events,
                execution: accepted.execution.expect("an execution"),
                next_offset,
                stdin_offset: accepted.stdin_offset,
                stdin_received: accepted.stdin_received,
            }),
            other => panic!("the first event is {other:?}"),
        }
    }

    pub fn id(&self) -> &str {
        &self.execution.execution_id
    }

    pub async fn send(&self, message: Request) {
        let message = ExecuteRequest {
            request: Some(message),
        };
        self.requests.send(message).await.expect("an open stream");
    }

    /// The next event, whose offset has to be the one that is due.
    pub async fn next(&mut self) -> Result<Option<Event>, Status> {
        let event = next(&mut self.events).await?;
        match &event {
            Some(Event::Output(output)) => {
                assert_eq!(output.offset, self.next_offset, "offset of the output");
                self.next_offset += output.data.len() as u64;
            }
            Some(Event::Gap(gap)) => {
                assert_eq!(gap.offset, self.next_offset, "offset of the gap");
                self.next_offset += gap.length;
            }
            Some(Event::StdinOffset(offset)) => self.stdin_offset = *offset,
            _ => {}
        }
        Ok(event)
    }

    /// Reads until it has ended. A stream without an end is a failure of the test.
    pub async fn finish(mut self) -> Followed {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next().await.expect("an event") {
                Some(Event::Output(output)) => match output.stream() {
                    OutputStream::Stderr => stderr.extend_from_slice(&output.data),
                    _ => stdout.extend_from_slice(&output.data),
                },
                Some(Event::Finished(execution)) => {
                    assert_eq!(execution.output_bytes, self.next_offset, "bytes counted");
                    return Followed {
                        execution,
                        stdout,
                        stderr,
                    };
                }
                Some(_) => {}
                None => panic!("the stream of {} ends without an end", self.id()),
            }
        }
    }
}

async fn next(events: &mut Streaming<ExecuteEvent>) -> Result<Option<Event>, Status> {
    let event = tokio::time::timeout(CALL_MAX, events.message())
        .await
        .expect("an event in time")?;
    Ok(event.and_then(|event| event.event))
}

/// Runs a command to its end.
pub async fn run(client: &mut Client, execution: ExecutionRequest) -> Followed {
    let stream = Stream::start(client, execution).await.expect("accepted");
    stream.finish().await
}
