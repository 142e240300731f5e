//! The loop that follows an execution. One task owns everything here.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request;
use cofferdam_proto::gateway::v1::{
    Accepted, AttachExecution, CancelNow, ExecuteEvent, Execution, ExecutionState, Resize,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::cursor::{Chunk, Cursor};
use super::detach::{DetachKeys, KEYS};
use super::ended::Ended;
use super::link::Link;
use super::reconnect::{Backoff, is_cut};
use super::signals::{Action, Incoming, Policy, Signals};
use super::stdin::{self, Window};
use super::terminal::{self, RawMode};
use super::writer::Writer;
use super::{Opening, Plan};
use crate::connect::Client;
use crate::error::{CommandError, Kind};
use crate::outcome;
use crate::status::Cause;
use crate::ui::Ui;
use crate::units::show_size;

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
            output: Writer::start(),
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
            match turn {
                Turn::Finished(execution) => return self.flush(*execution).await,
                Turn::Left => return self.left(),
                Turn::Detached => return self.detached(),
                Turn::Failed(error) => return Ended::without_result(self.latest, error),
                Turn::Cut(status) if self.leaving.is_some() => {
                    drop(status);
                    return self.left();
                }
                Turn::Cut(status) => {
                    if !is_cut(&status, self.latest.is_some()) {
                        return Ended::without_result(self.latest, status.into());
                    }
                    if let Err(ended) = self.pause(&mut backoff, status).await {
                        return Ended::without_result(self.latest, ended);
                    }
                }
            }
        }
    }

    /// One stream, from its opening to its end.
    async fn stream(&mut self, backoff: &mut Backoff) -> Turn {
        let mut link = Link::open(self.client.clone(), self.opening());
        let mut accepted = false;
        let mut pending = None;
        loop {
            let turn = match self.step(&mut link, &mut pending, accepted).await {
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
                    pending = self.on_event(event);
                    None
                }
                Step::Cut(status) => Some(Turn::Cut(status)),
                Step::OutputTaken => None,
                Step::OutputGone(error) => {
                    pending = None;
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
    async fn step(&mut self, link: &mut Link, pending: &mut Option<Chunk>, accepted: bool) -> Step {
        let leave_at = self.leaving.as_ref().map(|leaving| leaving.deadline);
        let wants_input = self.stdin.receiver.is_some() && self.stdin.window.has_room();
        let has_request = (accepted && self.stdin.window.wants_to_send())
            || ((accepted || leave_at.is_some()) && !self.control.is_empty());
        tokio::select! {
            incoming = self.signals.next() => Step::Signal(incoming),
            event = link.events.next(), if pending.is_none() => match event {
                Ok(Some(ExecuteEvent { event: Some(event) })) => Step::Event(event),
                // An event of a later version.
                Ok(Some(ExecuteEvent { event: None })) => Step::OutputTaken,
                Ok(None) => Step::Cut(Status::unknown("the stream ended early")),
                Err(status) => Step::Cut(status),
            },
            permit = self.output.queue.reserve(), if pending.is_some() => {
                // A closed queue has a reason, which the next branch gets.
                if let (Ok(permit), Some(chunk)) = (permit, pending.take()) {
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

    fn on_accepted(&mut self, accepted: Accepted) -> Result<(), CommandError> {
        if self.plan.stdin && !self.stdin.window.resume_at(accepted.stdin_offset) {
            return Err(CommandError::new(
                Kind::Lost,
                "the gateway asks for stdin again that it had confirmed",
            ));
        }
        if self.plan.stdin && !self.plan.is_interactive() {
            self.stdin.read();
        }
        if let Some(execution) = accepted.execution {
            self.on_state(execution)?;
        }
        if self.plan.pty {
            self.push_size();
        }
        Ok(())
    }

    fn on_state(&mut self, execution: Execution) -> Result<(), CommandError> {
        if execution.state() == ExecutionState::ExecutionQueued && self.ui.is_watched() {
            self.ui.note("waiting for a free place");
        }
        self.latest = Some(execution);
        if self.is_running() {
            self.take_terminal()?;
        }
        Ok(())
    }

    /// From when the command runs our terminal is its: until then Ctrl-C is ours.
    fn take_terminal(&mut self) -> Result<(), CommandError> {
        if self.raw.is_none() && self.plan.is_interactive() {
            self.raw = Some(RawMode::enter()?);
            self.stdin.read();
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.latest
            .as_ref()
            .is_some_and(|execution| execution.state() == ExecutionState::ExecutionRunning)
    }

    /// Takes an event; what it has for our outputs is given back.
    fn on_event(&mut self, event: Event) -> Option<Chunk> {
        let mut chunk = None;
        match event {
            Event::State(execution) => {
                if let Err(error) = self.on_state(execution) {
                    // The command runs; without raw mode it is only less comfortable.
                    self.ui.remark(&error.sentence());
                }
            }
            Event::Output(output) => chunk = self.cursor.output(output),
            Event::Gap(gap) => self.cursor.gap(&gap),
            Event::StdinOffset(offset) => self.stdin.window.taken(offset),
            Event::Accepted(_) | Event::Finished(_) => {}
        }
        let missing = self.cursor.take_missing();
        if missing > 0 {
            self.ui.remark(&format!(
                "{} of output are not kept any more and missing here",
                show_size(missing)
            ));
        }
        // Nobody reads it any more.
        chunk.filter(|_| self.leaving.is_none())
    }

    fn on_signal(&mut self, incoming: Incoming) -> Option<Turn> {
        match incoming {
            Incoming::Resized if self.plan.pty => self.push_size(),
            Incoming::Resized => {}
            Incoming::Continued => {
                if let Some(raw) = &self.raw {
                    // A terminal that went away shows as the end of stdin.
                    let _ = raw.apply();
                    self.push_size();
                }
            }
            Incoming::Signal(signal) => {
                let now = std::time::Instant::now();
                match self.policy.decide(signal, self.is_running(), now) {
                    Action::Forward(signal) => self.control.push_back(Request::Signal(signal)),
                    Action::Cancel(signal) => {
                        self.canceled_by = Some(signal);
                        self.control.push_back(Request::Cancel(CancelNow {}));
                        self.ui.note("canceling; once more to leave at once");
                    }
                    Action::Force(signal) => {
                        let code = outcome::signal_code(signal);
                        let name = outcome::signal_name(signal);
                        let already_leaving = self.leaving.is_some();
                        self.leave(
                            CommandError::new(Kind::Failed, format!("ended by {name}, twice"))
                                .exits_with(code),
                        );
                        // Nothing was accepted, so that there is nothing to cancel.
                        return (already_leaving || self.latest.is_none()).then_some(Turn::Left);
                    }
                }
            }
        }
        None
    }

    fn push_size(&mut self) {
        let Some((rows, columns)) = terminal::size() else {
            return;
        };
        self.control
            .retain(|request| !matches!(request, Request::Resize(_)));
        self.control
            .push_back(Request::Resize(Resize { rows, columns }));
    }

    /// Cancels the execution and gives it a short time to end.
    fn leave(&mut self, error: CommandError) {
        self.control.push_front(Request::Cancel(CancelNow {}));
        self.leaving.get_or_insert(Leaving {
            deadline: Instant::now() + LEAVE_WITHIN,
            error,
        });
    }

    fn on_input(&mut self, typed: Option<Bytes>) -> Option<Turn> {
        let Some(data) = typed else {
            self.stdin.receiver = None;
            self.stdin.window.close();
            return None;
        };
        let Some(keys) = &mut self.stdin.keys else {
            self.stdin.window.push(data);
            return None;
        };
        let typed = keys.filter(data);
        self.stdin.window.push(typed.data);
        typed.detach.then_some(Turn::Detached)
    }

    fn next_request(&mut self) -> Option<Request> {
        self.control
            .pop_front()
            .or_else(|| self.stdin.window.next_request())
    }

    /// Waits before the next try. An error: there is none.
    async fn pause(&mut self, backoff: &mut Backoff, status: Status) -> Result<(), CommandError> {
        let first = !backoff.is_trying();
        let Some(pause) = backoff.next(Instant::now()) else {
            return Err(self.cut_for_good(status));
        };
        if first {
            self.ui.note(&match &self.latest {
                Some(execution) => format!(
                    "the connection to the gateway was cut; reconnecting to {}",
                    execution.execution_id
                ),
                None => "the connection to the gateway was cut; trying again".to_owned(),
            });
        }
        let end = sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                incoming = self.signals.next() => {
                    self.on_signal(incoming);
                    if self.leaving.is_some() {
                        return Err(self.leave_error());
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

    /// Everything has come; now everything must get out.
    async fn flush(mut self, execution: Execution) -> Ended {
        if self.leaving.is_some() {
            self.latest = Some(execution);
            return self.left();
        }
        let finish = self.output.finish();
        tokio::pin!(finish);
        loop {
            tokio::select! {
                written = &mut finish => {
                    self.raw = None;
                    return match written {
                        Ok(()) => Ended::finished(execution, self.canceled_by),
                        Err(error) => {
                            Ended::without_result(Some(execution), CommandError::output(error))
                        }
                    };
                }
                incoming = self.signals.next() => {
                    // Whoever reads our output does not: there is nothing else left to stop.
                    if let Incoming::Signal(signal @ (super::signals::SIGINT | super::signals::SIGTERM)) = incoming {
                        let error = CommandError::new(
                            Kind::Failed,
                            "ended before all output was written",
                        );
                        return Ended::without_result(
                            Some(execution),
                            error.exits_with(outcome::signal_code(signal)),
                        );
                    }
                }
            }
        }
    }

    fn left(mut self) -> Ended {
        self.raw = None;
        let error = self.leave_error();
        Ended::without_result(self.latest, error)
    }

    fn leave_error(&mut self) -> CommandError {
        let error = match self.leaving.take() {
            Some(leaving) => leaving.error,
            None => CommandError::new(Kind::Internal, "left without a reason"),
        };
        match &self.latest {
            Some(execution) if !crate::view::execution::has_ended(execution) => {
                error.hint(format!(
                    "it was told to end, but did not say so yet: `cofferdam inspect {}`",
                    execution.execution_id
                ))
            }
            _ => error,
        }
    }

    fn detached(mut self) -> Ended {
        self.raw = None;
        let id = self
            .latest
            .as_ref()
            .map(|execution| execution.execution_id.clone())
            .unwrap_or_default();
        // Not 0: the command has not succeeded, it goes on.
        let error = CommandError::new(Kind::Failed, format!("detached from {id}, which goes on"))
            .hint(format!(
                "`cofferdam attach {id}` comes back ({KEYS} leaves again)"
            ));
        Ended::without_result(self.latest, error)
    }
}

async fn receive(receiver: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}
