//! The loop that follows an execution. One task owns everything here.

mod finish;
mod react;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request;
use cofferdam_proto::gateway::v1::{AttachExecution, ExecuteEvent, Execution};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::cursor::{Chunk, Cursor};
use super::detach::DetachKeys;
use super::ended::Ended;
use super::link::Link;
use super::reconnect::{Backoff, is_cut};
use super::signals::{Incoming, Policy, Signals};
use super::stdin::{self, Window};
use super::terminal::RawMode;
use super::writer::Writer;
use super::{Opening, Plan};
use crate::connect::Client;
use crate::error::{CommandError, Kind};
use crate::status::Cause;
use crate::ui::Ui;

/// How long a forced end may take before we leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Follows an execution until it has ended, or until there is nothing left to follow.
pub(crate) async fn follow(client: Client, plan: Plan, ui: &Ui) -> Ended {
    match Follower::new(client, plan, ui) {
        Ok(follower) => follower.run().await,
        Err(error) => Ended::without_result(None, error),
    }
}

#[derive(Debug)]
struct Follower<'a> {
    client: Client,
    plan: Plan,
    ui: &'a Ui,
    signals: Signals,
    policy: Policy,
    output: Writer,
    /// Waits for room in `output`; until then nothing else is received.
    pending: Option<Chunk>,
    cursor: Cursor,
    stdin: Input,
    /// Requests that go before stdin.
    control: VecDeque<Request>,
    raw: Option<RawMode>,
    latest: Option<Execution>,
    /// This process has asked for the end because of this signal.
    canceled_by: Option<u32>,
    leaving: Option<Leaving>,
}

#[derive(Debug, Default)]
struct Input {
    is_read: bool,
    receiver: Option<mpsc::Receiver<Bytes>>,
    window: Window,
    keys: Option<DetachKeys>,
}

impl Input {
    /// Begins to read, once.
    fn read(&mut self) {
        if !self.is_read {
            self.is_read = true;
            self.receiver = Some(stdin::read());
        }
    }
}

/// The end was asked for, and is not waited for much longer.
#[derive(Debug)]
struct Leaving {
    deadline: Instant,
    error: CommandError,
}

/// Why one stream is over.
#[derive(Debug)]
enum Turn {
    Finished(Box<Execution>),
    Cut(Status),
    Detached,
    Left,
    Failed(CommandError),
}

/// What can happen while a stream is followed.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on the stack for one turn of the loop"
)]
enum Step {
    Signal(Incoming),
    Event(Event),
    Cut(Status),
    OutputTaken,
    OutputGone(io::Error),
    Typed(Option<Bytes>),
    /// The stream takes a request.
    Room,
    /// Leaving has taken too long.
    TimeUp,
}

impl<'a> Follower<'a> {
    fn new(client: Client, plan: Plan, ui: &'a Ui) -> Result<Self, CommandError> {
        let from_offset = match &plan.opening {
            Opening::Start(_) => 0,
            Opening::Attach { from_offset, .. } => *from_offset,
        };
        Ok(Self {
            client,
            ui,
            signals: Signals::listen()?,
            policy: Policy::default(),
            output: Writer::new(),
            pending: None,
            cursor: Cursor::at(from_offset),
            stdin: Input {
                is_read: false,
                receiver: None,
                window: Window::default(),
                keys: plan.is_interactive().then(DetachKeys::default),
            },
            control: VecDeque::new(),
            raw: None,
            latest: None,
            canceled_by: None,
            leaving: None,
            plan,
        })
    }

    async fn run(mut self) -> Ended {
        let mut backoff = Backoff::new(self.plan.reconnect_limit);
        loop {
            let turn = self.stream(&mut backoff).await;
            return match turn {
                Turn::Finished(execution) if self.leaving.is_some() => {
                    self.latest = Some(*execution);
                    self.left()
                }
                Turn::Finished(execution) => {
                    let ended = Ended::finished(*execution, self.canceled_by);
                    self.flush(ended).await
                }
                Turn::Left => self.left(),
                Turn::Cut(_) if self.leaving.is_some() => self.left(),
                Turn::Cut(status) if is_cut(&status, self.latest.is_some()) => {
                    match self.pause(&mut backoff, status).await {
                        Ok(()) => continue,
                        Err(_) if self.leaving.is_some() => self.left(),
                        Err(error) => self.flush_without_result(error).await,
                    }
                }
                Turn::Cut(status) => self.flush_without_result(status.into()).await,
                Turn::Failed(error) => self.flush_without_result(error).await,
                Turn::Detached => self.detached().await,
            };
        }
    }

    /// One stream, from its opening to its end.
    async fn stream(&mut self, backoff: &mut Backoff) -> Turn {
        let mut link = Link::open(self.client.clone(), self.opening());
        let mut accepted = false;
        loop {
            let turn = match self.step(&mut link, accepted).await {
                Step::Signal(incoming) => self.on_signal(incoming),
                Step::Event(Event::Accepted(first)) => {
                    accepted = true;
                    backoff.reset();
                    self.on_accepted(first).err().map(Turn::Failed)
                }
                Step::Event(Event::Finished(execution)) => {
                    Some(Turn::Finished(Box::new(execution)))
                }
                Step::Event(event) => {
                    self.pending = self.on_event(event);
                    None
                }
                Step::Cut(status) => Some(Turn::Cut(status)),
                Step::OutputTaken => None,
                Step::OutputGone(error) => {
                    self.pending = None;
                    self.leave(CommandError::output(error));
                    None
                }
                Step::Typed(typed) => self.on_input(typed),
                Step::Room => {
                    if let Some(request) = self.next_request() {
                        link.requests.send(request);
                    }
                    None
                }
                Step::TimeUp => Some(Turn::Left),
            };
            if let Some(turn) = turn {
                return turn;
            }
        }
    }

    /// Waits for the next thing that happens. Every branch can be dropped without losing anything:
    /// chunks, events and keys leave their queues only when their branch wins.
    async fn step(&mut self, link: &mut Link, accepted: bool) -> Step {
        let leave_at = self.leaving.as_ref().map(|leaving| leaving.deadline);
        let wants_input = self.stdin.receiver.is_some() && self.stdin.window.has_room();
        let has_request = (accepted && self.stdin.window.wants_to_send())
            || ((accepted || leave_at.is_some()) && !self.control.is_empty());
        if self.pending.is_some() {
            self.output.begin();
        }
        tokio::select! {
            incoming = self.signals.next() => Step::Signal(incoming),
            event = link.events.next(), if self.pending.is_none() => match event {
                Ok(Some(ExecuteEvent { event: Some(event) })) => Step::Event(event),
                // An event of a later version.
                Ok(Some(ExecuteEvent { event: None })) => Step::OutputTaken,
                Ok(None) => Step::Cut(Status::unknown("the stream ended early")),
                Err(status) => Step::Cut(status),
            },
            permit = self.output.queue.reserve(), if self.pending.is_some() => {
                // A closed queue has a reason, which the next branch gets.
                if let (Ok(permit), Some(chunk)) = (permit, self.pending.take()) {
                    permit.send(chunk);
                }
                Step::OutputTaken
            }
            error = self.output.result.failed(), if leave_at.is_none() => Step::OutputGone(error),
            typed = receive(&mut self.stdin.receiver), if wants_input => Step::Typed(typed),
            () = link.requests.room(), if has_request && link.requests.is_open() => Step::Room,
            () = sleep_until(leave_at.unwrap_or_else(Instant::now)), if leave_at.is_some() => {
                Step::TimeUp
            }
        }
    }

    fn opening(&self) -> Request {
        match (&self.latest, &self.plan.opening) {
            (Some(execution), _) => self.attach(execution.execution_id.clone()),
            (None, Opening::Attach { execution_id, .. }) => self.attach(execution_id.clone()),
            (None, Opening::Start(start)) => Request::Start(start.as_ref().clone()),
        }
    }

    fn attach(&self, execution_id: String) -> Request {
        Request::Attach(AttachExecution {
            execution_id,
            from_offset: self.cursor.next_offset(),
            stdin: self.plan.stdin,
        })
    }

    /// Waits before the next try. An error: there is none.
    async fn pause(&mut self, backoff: &mut Backoff, status: Status) -> Result<(), CommandError> {
        let first = !backoff.is_trying();
        let Some(pause) = backoff.next(Instant::now()) else {
            return Err(self.cut_for_good(status));
        };
        if first {
            let what = match &self.latest {
                Some(execution) => format!("reconnecting to {}", execution.execution_id),
                None => "trying again".to_owned(),
            };
            let text = format!("the connection to the gateway was cut; {what}");
            self.ui.note_again("connection", &text);
        }
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                incoming = self.signals.next() => {
                    self.on_signal(incoming);
                    if self.leaving.is_some() {
                        return Err(self.cut_for_good(status));
                    }
                }
            }
        }
    }

    fn cut_for_good(&self, status: Status) -> CommandError {
        match &self.latest {
            Some(Execution { execution_id, .. }) => CommandError::new(
                Kind::Lost,
                format!("the connection was cut, and how {execution_id} ends is not known"),
            )
            .hint(format!(
                "`cofferdam attach {execution_id}` follows it again when the gateway is back"
            ))
            .caused_by(Cause(status)),
            None => status.into(),
        }
    }
}

async fn receive(receiver: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}
