//! Processes in a sandbox, over its session.

use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::supervisor::v1 as wire;
use cofferdam_proto::supervisor::v1::process_event::Event;
use cofferdam_proto::supervisor::v1::process_exited::Result as Ending;
use cofferdam_proto::supervisor::v1::process_request::Request;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::callback::Session;
use crate::case::Stop;
use crate::random;
use crate::suite::Suite;

/// Requests on their way; a sender waits beyond that.
const REQUESTS_MAX: usize = 16;

/// What the contract has callers keep under way at most.
const STDIN_UNDER_WAY_BYTES: u64 = 256 * 1024;

const STDIN_PIECE_BYTES: usize = 32 * 1024;

/// One stream of one process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: String,
    requests: mpsc::Sender<wire::ProcessRequest>,
    events: Streaming<wire::ProcessEvent>,
    pub(crate) started: wire::ProcessStarted,
    pub(crate) output: Output,
    /// By `fill`.
    stdin_sent: usize,
    patience: Duration,
}

/// What came so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Output {
    /// Where the first byte that was asked for is.
    pub(crate) from: u64,
    /// Of both streams, in order.
    pub(crate) all: Vec<u8>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exited: Option<wire::ProcessExited>,
    /// Bytes of stdin that were taken.
    pub(crate) stdin_taken: u64,
    /// The process wants no more of it.
    pub(crate) stdin_closed: bool,
}

/// `/bin/sh -c SCRIPT`
pub(crate) fn shell(script: &str) -> wire::ProcessSpec {
    program(&["/bin/sh", "-c", script])
}

pub(crate) fn program(argv: &[&str]) -> wire::ProcessSpec {
    let argv = argv
        .iter()
        .map(|argument| Bytes::copy_from_slice(argument.as_bytes()));
    wire::ProcessSpec {
        argv: argv.collect(),
        ..wire::ProcessSpec::default()
    }
}

/// Runs a script to its end; its output and how it ended.
pub(crate) async fn sh(suite: &Suite, session: &Session, script: &str) -> Result<Output, Stop> {
    run(suite, session, shell(script)).await
}

/// The trimmed stdout of a script that must succeed.
pub(crate) async fn say(suite: &Suite, session: &Session, script: &str) -> Result<String, Stop> {
    let output = sh(suite, session, script).await?;
    if output.code() != Some(0) {
        return Err(Stop::failed(format!(
            "`{script}` in the sandbox: {}; {:?}",
            output.ending(),
            output.text()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program to its end.
pub(crate) async fn run(
    suite: &Suite,
    session: &Session,
    spec: wire::ProcessSpec,
) -> Result<Output, Stop> {
    let mut process = Process::start(suite, session, spec).await?;
    process.finish().await?;
    Ok(process.output)
}

impl Process {
    /// Starts a program under an id of its own.
    pub(crate) async fn start(
        suite: &Suite,
        session: &Session,
        spec: wire::ProcessSpec,
    ) -> Result<Self, Stop> {
        let id = format!("p-{}", random::word());
        Self::start_as(suite, session, &id, spec, 0).await
    }

    /// The same, under this id; if it is known already, with its output from an offset on.
    pub(crate) async fn start_as(
        suite: &Suite,
        session: &Session,
        id: &str,
        spec: wire::ProcessSpec,
        from_offset: u64,
    ) -> Result<Self, Stop> {
        let argv = String::from_utf8_lossy(spec.argv.last().map_or(b"", Bytes::as_ref));
        suite.step(format!("running `{argv}` in the sandbox"));
        let start = wire::StartProcess {
            process_id: id.to_owned(),
            spec: Some(spec),
            from_offset,
        };
        Self::open(suite, session, id, Request::Start(start), from_offset)
            .await
            .map_err(|status| Stop::failed(format!("a process could not be started: {status}")))
    }

    /// Attaches to one, from an offset on.
    pub(crate) async fn attach(
        suite: &Suite,
        session: &Session,
        id: &str,
        from: u64,
    ) -> Result<Self, Stop> {
        let attach = wire::AttachProcess {
            process_id: id.to_owned(),
            from_offset: from,
        };
        Self::open(suite, session, id, Request::Attach(attach), from)
            .await
            .map_err(|status| {
                Stop::failed(format!(
                    "no attaching to a process that was started: {status}"
                ))
            })
    }

    async fn open(
        suite: &Suite,
        session: &Session,
        id: &str,
        first: Request,
        from: u64,
    ) -> Result<Self, Status> {
        let patience = suite.patience();
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let first = wire::ProcessRequest {
            request: Some(first),
        };
        // There is room for one.
        let _ = requests.try_send(first);
        let mut client = session.client();
        let late = |_| Status::deadline_exceeded("the supervisor did not answer");
        let answer = timeout(patience, client.process(ReceiverStream::new(receiver)));
        let mut events = answer.await.map_err(late)??.into_inner();
        let event = timeout(patience, events.message()).await.map_err(late)??;
        match event.and_then(|event| event.event) {
            Some(Event::Started(started)) => Ok(Self {
                id: id.to_owned(),
                requests,
                events,
                output: Output {
                    from,
                    stdin_taken: started.stdin_offset,
                    ..Output::default()
                },
                started,
                stdin_sent: 0,
                patience,
            }),
            _ => Err(Status::internal("the first event is not `started`")),
        }
    }

    pub(crate) async fn send(&self, request: Request) -> Result<(), Stop> {
        let request = wire::ProcessRequest {
            request: Some(request),
        };
        match timeout(self.patience, self.requests.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stop::failed("the stream of a process ended in its midst")),
            Err(_) => Err(Stop::failed(
                "the stream of a process takes nothing any more",
            )),
        }
    }

    /// Sends bytes of stdin, from this offset.
    pub(crate) async fn stdin(&self, offset: u64, data: impl Into<Bytes>) -> Result<(), Stop> {
        let data = data.into();
        self.send(Request::Stdin(wire::StdinData { offset, data }))
            .await
    }

    pub(crate) async fn stdin_eof(&self, offset: u64) -> Result<(), Stop> {
        self.send(Request::StdinEof(wire::StdinEof { offset }))
            .await
    }

    /// Sends what of `data`, the whole stdin, may be under way now.
    pub(crate) async fn fill(&mut self, data: &[u8]) -> Result<(), Stop> {
        let allowed = self.output.stdin_taken + STDIN_UNDER_WAY_BYTES;
        let end = usize::try_from(allowed).map_or(data.len(), |end| end.min(data.len()));
        while self.stdin_sent < end {
            let piece_end = end.min(self.stdin_sent + STDIN_PIECE_BYTES);
            let piece = Bytes::copy_from_slice(&data[self.stdin_sent..piece_end]);
            self.stdin(self.stdin_sent as u64, piece).await?;
            self.stdin_sent = piece_end;
        }
        Ok(())
    }

    /// Sends all of `data`, the whole stdin, as fast as it is taken, and then its end.
    pub(crate) async fn pour(&mut self, data: &[u8]) -> Result<(), Stop> {
        loop {
            self.fill(data).await?;
            if self.stdin_sent == data.len() {
                return self.stdin_eof(data.len() as u64).await;
            }
            if self.output.stdin_closed || !self.step().await? {
                return Ok(());
            }
        }
    }

    /// The next event; none when the stream is over.
    pub(crate) async fn event(&mut self) -> Result<Option<Event>, Stop> {
        match timeout(self.patience, self.events.message()).await {
            Ok(Ok(event)) => Ok(event.and_then(|event| event.event)),
            Ok(Err(status)) => Err(Stop::failed(format!(
                "the stream of a process broke: {status}"
            ))),
            Err(_) => Err(Stop::failed(format!(
                "a process has said nothing for {} s",
                self.patience.as_secs()
            ))),
        }
    }

    /// Reads one event into the output, and acknowledges it. False at the end of the process.
    pub(crate) async fn step(&mut self) -> Result<bool, Stop> {
        let Some(event) = self.event().await? else {
            return Err(Stop::failed(
                "the stream of a process ended without `exited`: its exit code is lost",
            ));
        };
        self.output.add(event)?;
        if self.output.exited.is_some() {
            return Ok(false);
        }
        let offset = self.output.end();
        let ack = wire::ProcessRequest {
            request: Some(Request::Ack(wire::OutputAck { offset })),
        };
        // One that is not sent is made up for by the next.
        let _ = self.requests.try_send(ack);
        Ok(true)
    }

    /// Reads until the process has ended.
    pub(crate) async fn finish(&mut self) -> Result<(), Stop> {
        while self.step().await? {}
        Ok(())
    }

    /// Reads until its output has this in it.
    pub(crate) async fn read_until(&mut self, text: &str) -> Result<(), Stop> {
        while !self.output.text().contains(text) {
            if !self.step().await? {
                let (ending, said) = (self.output.ending(), self.output.text());
                return Err(Stop::failed(format!(
                    "a process ended without saying {text:?}: {ending}; {said:?}"
                )));
            }
        }
        Ok(())
    }
}

impl Output {
    /// Offsets must follow each other without gap or overlap.
    fn add(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Output(output) => {
                if output.offset != self.end() {
                    return Err(Stop::failed(format!(
                        "output came from offset {} on where {} was next",
                        output.offset,
                        self.end()
                    )));
                }
                self.all.extend_from_slice(&output.data);
                match output.stream() {
                    wire::OutputStream::Stderr => self.stderr.extend_from_slice(&output.data),
                    _ => self.stdout.extend_from_slice(&output.data),
                }
            }
            Event::Exited(exited) => {
                if exited.output_bytes != self.end() {
                    return Err(Stop::failed(format!(
                        "the process wrote {} bytes, and {} came",
                        exited.output_bytes,
                        self.end()
                    )));
                }
                self.exited = Some(exited);
            }
            Event::StdinAck(ack) => {
                self.stdin_taken = ack.offset;
                self.stdin_closed = ack.closed;
            }
            Event::Started(_) => {}
        }
        Ok(())
    }

    /// After the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.from + self.all.len() as u64
    }

    /// Its exit code, if it exited.
    pub(crate) fn code(&self) -> Option<u32> {
        match self.exited.as_ref()?.result {
            Some(Ending::ExitCode(code)) => Some(code),
            _ => None,
        }
    }

    /// The signal that ended it, if one did.
    pub(crate) fn signal(&self) -> Option<u32> {
        match self.exited.as_ref()?.result {
            Some(Ending::Signal(signal)) => Some(signal),
            _ => None,
        }
    }

    /// For people.
    pub(crate) fn ending(&self) -> String {
        match self
            .exited
            .as_ref()
            .and_then(|exited| exited.result.clone())
        {
            Some(Ending::ExitCode(code)) => format!("exit code {code}"),
            Some(Ending::Signal(signal)) => format!("signal {signal}"),
            Some(Ending::StartFailure(failure)) => format!("it never ran: {}", failure.message),
            None => "no exit".to_owned(),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.all).into_owned()
    }
}
