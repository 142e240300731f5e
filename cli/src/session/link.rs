//! One stream of the contract's `Execute`, from its opening on.

use std::fmt;
use std::pin::Pin;

use cofferdam_proto::gateway::v1::execute_request::Request;
use cofferdam_proto::gateway::v1::{ExecuteEvent, ExecuteRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::connect::Client;

/// Requests that wait for the stream. Stdin is bounded by its window before that.
const REQUESTS_MAX: usize = 8;

/// Two halves, so that one can wait for both at the same time.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) events: Events,
    pub(super) requests: Requests,
}

type Call = Pin<Box<dyn Future<Output = Result<Response<Streaming<ExecuteEvent>>, Status>> + Send>>;

pub(super) enum Events {
    Opening(Call),
    Open(Box<Streaming<ExecuteEvent>>),
}

/// Closed when the stream takes nothing more.
#[derive(Debug)]
pub(super) struct Requests(Option<mpsc::Sender<ExecuteRequest>>);

impl Link {
    pub(super) fn open(mut client: Client, opening: Request) -> Self {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let mut requests = Requests(Some(requests));
        requests.send(opening);
        let call = async move { client.execute(ReceiverStream::new(receiver)).await };
        Self {
            events: Events::Opening(Box::pin(call)),
            requests,
        }
    }
}

impl Events {
    /// The next event; none at the end. Nothing is lost when this is cancelled.
    pub(super) async fn next(&mut self) -> Result<Option<ExecuteEvent>, Status> {
        loop {
            match self {
                Self::Opening(call) => *self = Self::Open(Box::new(call.await?.into_inner())),
                Self::Open(events) => return events.message().await,
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opening(_) => "Opening",
            Self::Open(_) => "Open",
        })
    }
}

impl Requests {
    /// False if the stream takes nothing more; how it ended comes as an event.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Returns when there is room for one, or when there never will be.
    pub(super) async fn room(&self) {
        if let Some(sender) = &self.0 {
            // The permit is given back: we are the only one who sends.
            let _ = sender.reserve().await;
        }
    }

    pub(super) fn send(&mut self, request: Request) {
        let request = ExecuteRequest {
            request: Some(request),
        };
        if let Some(sender) = &self.0
            && sender.try_send(request).is_err()
        {
            self.0 = None;
        }
    }
}
