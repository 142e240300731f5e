//! The gateway's side of a session, as small as it can be.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::hello::{Frame, Scanner, mask, ready_mac, reply_mac, same_mac, welcome_mac};
use cofferdam_proto::supervisor::v1::process_event::Event;
use cofferdam_proto::supervisor::v1::process_exited::Result as ExitResult;
use cofferdam_proto::supervisor::v1::process_request::Request;
use cofferdam_proto::supervisor::v1::supervisor_client::SupervisorClient;
use cofferdam_proto::supervisor::v1::{
    AttachProcess, EnvironmentVariable, Hello, HelloReply, OutputAck, OutputStream, ProcessEvent,
    ProcessExited, ProcessRequest, ProcessSpec, ProcessStarted, StartProcess, StdinData, StdinEof,
    Welcome,
};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Code, Status, Streaming};

/// Nothing here takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type Token = [u8; 32];
pub(crate) type Client = SupervisorClient<Connection>;

/// Fails the test instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .expect("this should not take so long")
}

/// An HTTP/2 client as a tower service.
#[derive(Clone)]
pub(crate) struct Connection(SendRequest<Body>);

impl tonic::codegen::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// The nonce of the next hello; any that was not used before will do.
pub(crate) fn nonce() -> [u8; 32] {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut nonce = [0x5a; 32];
    nonce[..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    nonce
}

pub(crate) fn hello_frame(nonce: &[u8; 32]) -> Vec<u8> {
    let hello = Hello {
        nonce: Bytes::copy_from_slice(nonce),
        gateway_id: "gw-test".into(),
        protocol_min: 1,
        protocol_max: 1,
    };
    Frame::Hello(hello).encode().expect("short")
}

pub(crate) fn welcome_frame(token: &Token, nonce: &[u8; 32], next: &Token) -> Vec<u8> {
    let welcome = Welcome {
        masked_next_token: Bytes::copy_from_slice(&mask(token, nonce, next)),
        hmac: Bytes::copy_from_slice(&welcome_mac(token, nonce, next)),
        protocol: 1,
        session: 1,
    };
    Frame::Welcome(welcome).encode().expect("short")
}

/// Reads until the next frame; `None` at the end of the stream.
pub(crate) async fn next_frame<S>(stream: &mut S, scanner: &mut Scanner) -> Option<Frame>
where
    S: AsyncRead + Unpin,
{
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = scanner.next_frame() {
            return Some(frame);
        }
        match soon(stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => scanner.push(&buffer[..count]),
        }
    }
}

/// The reply proves that the supervisor holds this token.
pub(crate) fn proves(reply: &HelloReply, token: &Token, nonce: &[u8; 32]) -> bool {
    let boot_id = reply.boot_id[..]
        .try_into()
        .expect("a boot id has 16 bytes");
    reply.nonce == nonce[..]
        && same_mac(
            &reply_mac(token, nonce, &boot_id, &reply.sandbox_id),
            &reply.hmac,
        )
}

/// Says hello and answers the reply; the supervisor then holds `next`. Also returns the bytes that
/// came behind its Ready: the first of HTTP/2.
pub(crate) async fn hello<S>(stream: &mut S, token: &Token, next: &Token) -> (HelloReply, Bytes)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let nonce = nonce();
    let mut scanner = Scanner::new();
    stream
        .write_all(&hello_frame(&nonce))
        .await
        .expect("written");
    let reply = loop {
        match next_frame(stream, &mut scanner).await.expect("a reply") {
            Frame::HelloReply(reply) if reply.nonce == nonce[..] => break reply,
            _ => {}
        }
    };
    assert!(proves(&reply, token, &nonce), "the reply proves the token");
    stream
        .write_all(&welcome_frame(token, &nonce, next))
        .await
        .expect("written");
    let ready = loop {
        // Another answer to the same Hello may come before it.
        if let Frame::Ready(ready) = next_frame(stream, &mut scanner).await.expect("a Ready") {
            break ready;
        }
    };
    assert!(same_mac(&ready_mac(next, &nonce), &ready.hmac));
    (reply, scanner.into_rest().into())
}

/// HTTP/2 over a stream whose hello is done.
pub(crate) async fn http2<S>(stream: S, rest: Bytes) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let stream = tokio::io::join(std::io::Cursor::new(rest).chain(reader), writer);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(256 * 1024)
        // All streams may stall at once: the window of a stream times their number.
        .initial_connection_window_size(256 * 1024 * 1024)
        .max_frame_size(128 * 1024)
        .max_concurrent_reset_streams(1024)
        .handshake(TokioIo::new(stream))
        .await
        .expect("handshake");
    // It ends with the stream, which tests cut at will.
    tokio::spawn(async move { drop(connection.await) });
    let origin = http::Uri::from_static("http://sandbox");
    SupervisorClient::with_origin(Connection(sender), origin)
        .max_decoding_message_size(16 * 1024 * 1024)
}

/// One `Process` call.
pub(crate) struct Attached {
    requests: mpsc::Sender<ProcessRequest>,
    pub(crate) events: Streaming<ProcessEvent>,
    pub(crate) started: ProcessStarted,
}

/// What a process did in the end.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) all: Vec<u8>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exited: ProcessExited,
}

impl Outcome {
    pub(crate) fn code(&self) -> u32 {
        match self.exited.result {
            Some(ExitResult::ExitCode(code)) => code,
            ref other => panic!("no exit code, but {other:?}; {}", self.text()),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.all).into_owned()
    }
}

pub(crate) fn spec(argv: &[&str]) -> ProcessSpec {
    let argv = argv
        .iter()
        .map(|&argument| Bytes::from(argument.to_owned()))
        .collect();
    ProcessSpec {
        argv,
        ..ProcessSpec::default()
    }
}

pub(crate) fn shell(script: &str) -> ProcessSpec {
    spec(&["/bin/sh", "-c", script])
}

pub(crate) fn variable(name: &str, value: &str) -> EnvironmentVariable {
    EnvironmentVariable {
        name: name.into(),
        value: Bytes::from(value.to_owned()),
    }
}

pub(crate) async fn start(client: &Client, id: &str, spec: ProcessSpec) -> Attached {
    let start = StartProcess {
        process_id: id.into(),
        spec: Some(spec),
        from_offset: 0,
    };
    open(client, Request::Start(start)).await.expect("starts")
}

pub(crate) async fn attach(client: &Client, id: &str, from: u64) -> Result<Attached, Status> {
    let attach = AttachProcess {
        process_id: id.into(),
        from_offset: from,
    };
    open(client, Request::Attach(attach)).await
}

/// Runs to the end, acknowledging nothing but the end.
pub(crate) async fn run(client: &Client, id: &str, spec: ProcessSpec) -> Outcome {
    start(client, id, spec).await.finish().await
}

pub(crate) async fn open(client: &Client, first: Request) -> Result<Attached, Status> {
    let (requests, receiver) = mpsc::channel(16);
    requests
        .send(ProcessRequest {
            request: Some(first),
        })
        .await
        .expect("there is room");
    let response = soon(client.clone().process(ReceiverStream::new(receiver))).await?;
    let mut events = response.into_inner();
    let Some(Event::Started(started)) = soon(events.message()).await?.and_then(|e| e.event) else {
        return Err(Status::new(Code::Internal, "the first event is `started`"));
    };
    Ok(Attached {
        requests,
        events,
        started,
    })
}

impl Attached {
    pub(crate) async fn send(&self, request: Request) {
        let sent = self.requests.send(ProcessRequest {
            request: Some(request),
        });
        soon(sent).await.expect("the stream is there");
    }

    pub(crate) async fn stdin(&self, offset: u64, data: &[u8]) {
        let data = Bytes::copy_from_slice(data);
        self.send(Request::Stdin(StdinData { offset, data })).await;
    }

    pub(crate) async fn stdin_eof(&self, offset: u64) {
        self.send(Request::StdinEof(StdinEof { offset })).await;
    }

    /// The process may have ended meanwhile, and the stream with it.
    pub(crate) async fn ack(&self, offset: u64) {
        let request = ProcessRequest {
            request: Some(Request::Ack(OutputAck { offset })),
        };
        let _ = soon(self.requests.send(request)).await;
    }

    pub(crate) async fn event(&mut self) -> Result<Option<Event>, Status> {
        Ok(soon(self.events.message())
            .await?
            .and_then(|event| event.event))
    }

    /// Reads events into `outcome` until its text holds `text`.
    pub(crate) async fn read_until(&mut self, outcome: &mut Outcome, text: &str) {
        while !outcome.text().contains(text) {
            let event = self.event().await.expect("the stream goes on");
            match event {
                Some(event) => {
                    let has_ended = outcome.add(event);
                    assert!(!has_ended, "ended: {:?} {}", outcome.exited, outcome.text());
                }
                None => panic!("ended without {text:?}: {}", outcome.text()),
            }
        }
    }

    /// Reads to the end of the process, acknowledging as it goes.
    pub(crate) async fn finish(self) -> Outcome {
        self.finish_with(Outcome::default()).await
    }

    pub(crate) async fn finish_with(mut self, mut outcome: Outcome) -> Outcome {
        loop {
            let event = self.event().await.expect("the stream goes on");
            let event = event.expect("a stream does not end without `exited`");
            let is_output = matches!(event, Event::Output(_));
            if outcome.add(event) {
                return outcome;
            }
            if is_output {
                self.ack(outcome.all.len() as u64).await;
            }
        }
    }
}

impl Outcome {
    /// True if that was the last event. Offsets must follow each other without gap or overlap.
    pub(crate) fn add(&mut self, event: Event) -> bool {
        match event {
            Event::Output(output) => {
                assert_eq!(output.offset, self.all.len() as u64, "each byte comes once");
                self.all.extend_from_slice(&output.data);
                match output.stream() {
                    OutputStream::Stdout => self.stdout.extend_from_slice(&output.data),
                    OutputStream::Stderr => self.stderr.extend_from_slice(&output.data),
                    OutputStream::Unspecified => panic!("output has a stream"),
                }
                false
            }
            Event::Exited(exited) => {
                assert_eq!(
                    exited.output_bytes,
                    self.all.len() as u64,
                    "all output has been sent"
                );
                self.exited = exited;
                true
            }
            Event::StdinAck(_) => false,
            Event::Started(_) => panic!("`started` comes once"),
        }
    }
}
