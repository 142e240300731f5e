//! One process stream to a supervisor: opening it, and what is waiting to be sent on it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::PIECE_BYTES_MAX;
use cofferdam_proto::supervisor::v1::{self as wire, process_request::Request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::stdin::StdinBuffer;
use crate::callback::Session;
use crate::model::{Environment, ExecutionFacts};

/// Requests that HTTP/2 may hold for one process.
const REQUESTS_MAX: usize = 8;

/// An open stream.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) requests: mpsc::Sender<wire::ProcessRequest>,
    pub(super) events: Streaming<wire::ProcessEvent>,
}

/// The supervisor answers at once, whatever the process does.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

impl Link {
    /// A supervisor that serves and does not answer this is given up after a time.
    pub(super) async fn open(session: &Session, first: Request) -> Result<Self, tonic::Status> {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let first = wire::ProcessRequest {
            request: Some(first),
        };
        // The channel is fresh and has room.
        let _sent = requests.try_send(first);
        let mut client = session.client();
        let opening = client.process(ReceiverStream::new(receiver));
        let response = tokio::time::timeout(OPEN_TIMEOUT, opening)
            .await
            .map_err(|_| {
                tonic::Status::deadline_exceeded("the supervisor did not answer in time")
            })??;
        Ok(Self {
            requests,
            events: response.into_inner(),
        })
    }
}

/// The request that starts the process; idempotent on the execution's id.
pub(super) fn start_request(facts: &ExecutionFacts, environment: &Environment) -> Request {
    let environment = environment
        .0
        .iter()
        .map(|(name, value)| wire::EnvironmentVariable {
            name: name.clone(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        })
        .collect();
    let spec = wire::ProcessSpec {
        argv: facts
            .argv
            .iter()
            .map(|argument| Bytes::copy_from_slice(argument))
            .collect(),
        environment,
        cwd: facts.cwd.clone(),
        uid: facts.user.map(|(uid, _)| uid),
        gid: facts.user.map(|(uid, gid)| gid.unwrap_or(uid)),
        pty: facts.pty.as_ref().map(|pty| wire::PtySpec {
            rows: pty.rows,
            columns: pty.columns,
            term: pty.term.clone(),
        }),
        stdin: facts.stdin,
        spool_bytes: 0,
    };
    Request::Start(wire::StartProcess {
        process_id: facts.id.to_string(),
        spec: Some(spec),
        from_offset: 0,
    })
}

/// The request that continues after a cut.
pub(super) fn attach_request(facts: &ExecutionFacts, from_offset: u64) -> Request {
    Request::Attach(wire::AttachProcess {
        process_id: facts.id.to_string(),
        from_offset,
    })
}

/// What is to be sent next: signals and sizes first, then the acknowledgement, then stdin.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    control: VecDeque<Request>,
    ack: Option<u64>,
    unsent: Option<(u64, Bytes)>,
}

impl Outbox {
    pub(super) fn control(&mut self, request: Request) {
        self.control.push_back(request);
    }

    pub(super) fn control_waiting(&self) -> usize {
        self.control.len()
    }

    pub(super) fn acknowledge(&mut self, offset: u64) {
        self.ack = Some(offset);
    }

    /// A new stream: what was under way on the old one is asked for anew.
    pub(super) fn rewind(&mut self) {
        self.ack = None;
        self.unsent = None;
    }

    pub(super) fn has_work(&self, stdin: &StdinBuffer) -> bool {
        !self.control.is_empty() || self.ack.is_some() || self.unsent.is_some() || stdin.has_work()
    }

    pub(super) fn next(&mut self, stdin: &mut StdinBuffer) -> Option<wire::ProcessRequest> {
        let request = if let Some(request) = self.control.pop_front() {
            request
        } else if let Some(offset) = self.ack.take() {
            Request::Ack(wire::OutputAck { offset })
        } else {
            self.next_stdin(stdin)?
        };
        Some(wire::ProcessRequest {
            request: Some(request),
        })
    }

    fn next_stdin(&mut self, stdin: &mut StdinBuffer) -> Option<Request> {
        if let Some((offset, mut data)) = self.unsent.take().or_else(|| stdin.next()) {
            let piece = data.split_to(data.len().min(PIECE_BYTES_MAX));
            if !data.is_empty() {
                self.unsent = Some((offset + piece.len() as u64, data));
            }
            return Some(Request::Stdin(wire::StdinData {
                offset,
                data: piece,
            }));
        }
        let offset = stdin.take_eof()?;
        Some(Request::StdinEof(wire::StdinEof { offset }))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::callback::tests::answering_only_pings;

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_does_not_answer_a_start_is_given_up_and_its_session_is_not() {
        let (_setup, session) = answering_only_pings().await;
        let begun = Instant::now();
        let attach = Request::Attach(wire::AttachProcess {
            process_id: "exec-test".to_owned(),
            from_offset: 0,
        });
        let opening = Link::open(&session, attach);
        let opened = timeout(OPEN_TIMEOUT * 10, opening).await.expect("an end");
        let status = opened.expect_err("no answer");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
        assert!(begun.elapsed() < OPEN_TIMEOUT * 2, "{:?}", begun.elapsed());
        assert!(!session.is_closed());
    }
}
