//! One stream of the `Process` call: requests in, events out.
//!
//! The two directions are independent. A reader that has stalled must still be able to acknowledge,
//! to signal and to send stdin, so a task of its own hears the requests; it ends with the stream.

use std::pin::Pin;
use std::sync::Arc;

use cofferdam_proto::supervisor::v1::process_request::Request;
use cofferdam_proto::supervisor::v1::{ProcessEvent, ProcessRequest};
use futures_util::stream::{Stream, unfold};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::convert;
use crate::core::Core;
use crate::process::{Next, Position, Process, ValidSpec};
use crate::pty;
use crate::signal::Signal;

/// The events of one attached stream.
pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<ProcessEvent, Status>> + Send>>;

/// Starts or finds the process that the first request names, and attaches to it.
pub(super) async fn attach(
    core: &Arc<Core>,
    mut requests: Streaming<ProcessRequest>,
) -> Result<Events, Status> {
    let first = requests
        .message()
        .await?
        .and_then(|request| request.request);
    let (process, existed, from_offset) = match first {
        Some(Request::Start(start)) => {
            let spec = || {
                let spec = start.spec.as_ref();
                let spec =
                    spec.ok_or_else(|| Status::invalid_argument("start.spec: is missing"))?;
                Ok::<_, Status>(ValidSpec::new(spec, &core.defaults())?)
            };
            let (process, existed) = core.table.start(&start.process_id, spec)?;
            (
                process,
                existed,
                if existed { start.from_offset } else { 0 },
            )
        }
        Some(Request::Attach(attach)) => (
            core.table.get(&attach.process_id)?,
            true,
            attach.from_offset,
        ),
        _ => {
            return Err(Status::invalid_argument(
                "request: the first must be start or attach",
            ));
        }
    };
    process.started().await;
    check_offset(&process, from_offset)?;

    let started = convert::started(&process, existed);
    let facts = process.facts();
    let (failed, failure) = oneshot::channel();
    let hearing = Arc::clone(&process);
    let hear = core.tasks.spawn(async move {
        if let Err(status) = hear(requests, &hearing).await {
            // The stream may have ended by itself meanwhile.
            let _ = failed.send(status);
        }
    });
    let attached = Attached {
        process,
        position: Position {
            output: from_offset,
            stdin_taken: facts.stdin_taken,
            stdin_closed: facts.stdin_absent,
        },
        first: Some(started),
        failure: Some(failure),
        _hear: AbortOnDropHandle::new(hear),
    };
    Ok(Box::pin(unfold(Some(attached), |attached| async {
        let mut attached = attached?;
        let (event, is_last) = attached.next().await;
        Some((event, (!is_last).then_some(attached)))
    })))
}

fn check_offset(process: &Process, from_offset: u64) -> Result<(), Status> {
    let facts = process.facts();
    if from_offset < facts.output_first {
        return Err(passed(facts.output_first));
    }
    if from_offset > facts.output_end {
        let message = format!(
            "from_offset: the output has only {} bytes",
            facts.output_end
        );
        return Err(Status::out_of_range(message));
    }
    Ok(())
}

fn passed(first: u64) -> Status {
    Status::out_of_range(format!(
        "output before offset {first} was acknowledged and is gone"
    ))
}

struct Attached {
    process: Arc<Process>,
    position: Position,
    first: Option<ProcessEvent>,
    failure: Option<oneshot::Receiver<Status>>,
    _hear: AbortOnDropHandle<()>,
}

impl Attached {
    /// The next event, and whether it is the last one.
    async fn next(&mut self) -> (Result<ProcessEvent, Status>, bool) {
        if let Some(started) = self.first.take() {
            return (Ok(started), false);
        }
        let next = tokio::select! {
            biased;
            status = refused(&mut self.failure) => return (Err(status), true),
            next = self.process.next(&self.position) => next,
        };
        match next {
            Next::Output(piece) => {
                self.position.output = piece.end();
                (Ok(convert::output(piece)), false)
            }
            Next::StdinAck { offset, closed } => {
                self.position.stdin_taken = offset;
                self.position.stdin_closed = closed;
                (Ok(convert::stdin_ack(offset, closed)), false)
            }
            Next::Exited { exit, output_bytes } => {
                (Ok(convert::exited_event(&exit, output_bytes)), true)
            }
            Next::Passed { first } => (Err(passed(first)), true),
        }
    }
}

/// Waits for a request that cannot be served. That the requests just ended is none.
async fn refused(failure: &mut Option<oneshot::Receiver<Status>>) -> Status {
    if let Some(receiver) = failure {
        let result = receiver.await;
        *failure = None;
        if let Ok(status) = result {
            return status;
        }
    }
    std::future::pending().await
}

/// Hears requests until the caller sends no more.
async fn hear(mut requests: Streaming<ProcessRequest>, process: &Process) -> Result<(), Status> {
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            // The caller has ended its half, or the stream is cut. The process goes on.
            Ok(None) | Err(_) => return Ok(()),
        };
        match request.request {
            Some(Request::Stdin(stdin)) => process.push_stdin(stdin.offset, stdin.data).await?,
            Some(Request::StdinEof(end)) => process.end_stdin(end.offset)?,
            Some(Request::Ack(ack)) => acknowledge(process, ack.offset)?,
            Some(Request::Signal(number)) => signal_group(process, Signal::new(number)?)?,
            Some(Request::Resize(size)) => {
                let resized = process.resize(pty::size(size.rows, size.columns));
                resized.map_err(|error| Status::internal(format!("cannot resize: {error}")))?;
            }
            Some(Request::Start(_) | Request::Attach(_)) => {
                return Err(Status::invalid_argument(
                    "request: start or attach only come first",
                ));
            }
            // A request that a newer gateway knows.
            None => {}
        }
    }
}

fn acknowledge(process: &Process, offset: u64) -> Result<(), Status> {
    if process.acknowledge(offset) {
        return Ok(());
    }
    Err(Status::invalid_argument(
        "ack.offset: there is not so much output",
    ))
}

/// Signals what Ctrl-C would.
pub(super) fn signal_group(process: &Process, signal: Signal) -> Result<(), Status> {
    process
        .signal_group(signal)
        .map_err(|error| Status::internal(format!("cannot signal: {error}")))
}
