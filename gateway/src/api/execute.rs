//! The stream of one execution: requests in, events out, each at its own pace.

use std::pin::Pin;
use std::time::Duration;

use cofferdam_proto::gateway::v1 as wire;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::{Status, Streaming};
use wire::execute_event::Event;
use wire::execute_request::Request;

use super::caller::Caller;
use super::intake::idempotency;
use super::status::ApiError;
use super::{Api, convert};
use crate::execution::{Execution, Follow, Item, StdinPiece, StdinProgress};
use crate::model::ExecutionFacts;

pub(super) type EventStream =
    Pin<Box<dyn Stream<Item = Result<wire::ExecuteEvent, Status>> + Send>>;

/// The first request says what is wanted; it comes at once.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn execute(
    api: Api,
    caller: Caller,
    mut requests: Streaming<wire::ExecuteRequest>,
) -> Result<EventStream, Status> {
    let first = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, requests.message()).await;
    let first = first
        .map_err(|_| ApiError::field("request", "the first request did not come in time"))??
        .and_then(|request| request.request);
    match first {
        Some(Request::Start(start)) => started(api, caller, start, requests).await,
        Some(Request::Attach(attach)) => attached(&api, caller, attach, requests).await,
        _ => Err(ApiError::field("request", "the first request is \"start\" or \"attach\"").into()),
    }
}

async fn started(
    api: Api,
    caller: Caller,
    start: wire::StartExecution,
    requests: Streaming<wire::ExecuteRequest>,
) -> Result<EventStream, Status> {
    let key = idempotency(
        caller,
        &start.idempotency_key,
        &start.execution.clone().unwrap_or_default(),
    )?;
    let request = start
        .execution
        .ok_or_else(|| ApiError::field("start.execution", "is missing"))?;
    // Whether it is a repeated request is looked up only when it cannot be begun: that its key is
    // new is seen by storing it.
    let begun = match api.new_execution(caller, request, true).await {
        Ok(new) => api
            .0
            .executions
            .start(new, key.as_ref())
            .await
            .map_err(ApiError::from),
        Err(error) => Err(error),
    };
    let (execution, follow) = match begun {
        Ok(begun) => begun,
        Err(error) => match api.known_execution(caller, key.as_ref()).await? {
            Some(known) => return attached(&api, caller, attach_to(&known), requests).await,
            None => return Err(error.into()),
        },
    };
    let cancel_grace = api.0.cancel_grace;
    Ok(stream(
        Some(execution),
        follow,
        requests,
        true,
        cancel_grace,
    ))
}

fn attach_to(facts: &ExecutionFacts) -> wire::AttachExecution {
    wire::AttachExecution {
        execution_id: facts.id.to_string(),
        from_offset: 0,
        stdin: facts.stdin,
    }
}

async fn attached(
    api: &Api,
    caller: Caller,
    attach: wire::AttachExecution,
    requests: Streaming<wire::ExecuteRequest>,
) -> Result<EventStream, Status> {
    let (id, _) = caller
        .execution(&api.0.executions, &attach.execution_id)
        .await?;
    let execution = api.0.executions.find(&id);
    let follow = api
        .0
        .executions
        .follow(&id, attach.from_offset, true)
        .await
        .map_err(ApiError::from)?
        .ok_or_else(|| ApiError::no_execution(&attach.execution_id))?;
    let grace = api.0.cancel_grace;
    Ok(stream(execution, follow, requests, attach.stdin, grace))
}

/// Output without input: of an execution that runs or has ended.
pub(super) fn read_only(mut follow: Follow, wait: bool) -> EventStream {
    Box::pin(async_stream::try_stream! {
        loop {
            let item = follow.next(wait).await.map_err(ApiError::from)?;
            let last = matches!(item, Item::Finished(_) | Item::CaughtUp(_));
            if let Some(event) = convert::event(item) {
                yield event;
            }
            if last {
                return;
            }
        }
    })
}

fn stream(
    execution: Option<Execution>,
    mut follow: Follow,
    requests: Streaming<wire::ExecuteRequest>,
    stdin: bool,
    cancel_grace: Duration,
) -> EventStream {
    Box::pin(async_stream::try_stream! {
        // The input has its own pace: a process that reads nothing must not hold its output up.
        // Ends with this stream, which the server drops when the caller goes away.
        let mut input = JoinSet::new();
        let (errors_tx, mut errors) = mpsc::channel::<ApiError>(1);
        let mut progress = execution.as_ref().map(Execution::stdin_progress);
        let mut told = 0;
        if let (Some(execution), Some(progress)) = (&execution, &mut progress) {
            let known = if stdin {
                // A runner that is gone has ended the execution, which wants nothing any more.
                progress.wait_for(Option::is_some).await.ok().and_then(|known| *known)
            } else {
                *progress.borrow_and_update()
            };
            told = known.map_or(0, |known| known.taken);
            yield event(Event::Accepted(wire::Accepted {
                execution: Some(convert::execution(&execution.facts())),
                stdin_offset: told,
                stdin_received: known.map_or(0, |known| known.received),
            }));
        }
        if let Some(execution) = execution {
            input.spawn(take_input(execution, requests, stdin, cancel_grace, errors_tx));
        }
        loop {
            let next = tokio::select! {
                biased;
                Some(error) = errors.recv() => Err(error),
                item = follow.next(true) => item.map(Next::Item).map_err(ApiError::from),
                Some(known) = changed(&mut progress), if progress.is_some() => {
                    Ok(Next::Stdin(known))
                }
            };
            match next? {
                Next::Stdin(known) => if known.taken != told {
                    told = known.taken;
                    yield event(Event::StdinOffset(told));
                },
                Next::Item(item) => {
                    let last = matches!(item, Item::Finished(_));
                    if let Some(event) = convert::event(item) {
                        yield event;
                    }
                    if last {
                        return;
                    }
                }
            }
        }
    })
}

enum Next {
    Item(Item),
    Stdin(StdinProgress),
}

fn event(event: Event) -> wire::ExecuteEvent {
    wire::ExecuteEvent { event: Some(event) }
}

async fn changed(
    progress: &mut Option<watch::Receiver<Option<StdinProgress>>>,
) -> Option<StdinProgress> {
    let receiver = progress.as_mut()?;
    if receiver.changed().await.is_err() {
        *progress = None;
        return None;
    }
    *receiver.borrow_and_update()
}

/// Runs until the caller has nothing more to say, or the execution wants nothing more.
async fn take_input(
    execution: Execution,
    mut requests: Streaming<wire::ExecuteRequest>,
    stdin: bool,
    cancel_grace: Duration,
    errors: mpsc::Sender<ApiError>,
) {
    // A cut stream is noticed by the output's side; the runner decides what follows from it.
    while let Ok(Some(request)) = requests.message().await {
        let Some(request) = request.request else {
            continue;
        };
        let refused = match request {
            Request::Stdin(_) | Request::StdinEof(_) if !stdin => Some(ApiError::field(
                "stdin",
                "was not asked for when this stream began",
            )),
            Request::Stdin(piece) => {
                let (offset, data) = (piece.offset, piece.data);
                execution.stdin(StdinPiece::Data { offset, data }).await;
                None
            }
            Request::StdinEof(eof) => {
                let offset = eof.offset;
                execution.stdin(StdinPiece::Eof { offset }).await;
                None
            }
            Request::Signal(signal @ 1..=64) => {
                execution.signal(signal).await;
                None
            }
            Request::Signal(other) => Some(ApiError::field(
                "signal",
                format!("{other} is not a Linux signal, 1 to 64"),
            )),
            Request::Resize(size) => {
                execution
                    .resize(size.rows.min(65_535), size.columns.min(65_535))
                    .await;
                None
            }
            Request::Cancel(_) => {
                execution.cancel(cancel_grace).await;
                None
            }
            Request::Start(_) | Request::Attach(_) => Some(ApiError::field(
                "request",
                "comes first on a stream, and once",
            )),
        };
        if let Some(error) = refused {
            let _ended = errors.send(error).await;
            return;
        }
    }
}
