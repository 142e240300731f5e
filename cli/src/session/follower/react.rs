//! What the follower does about each thing that happens. No waiting here.

use bytes::Bytes;
use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request;
use cofferdam_proto::gateway::v1::{Accepted, CancelNow, Execution, ExecutionState, Resize};
use tokio::time::Instant;

use super::{Follower, LEAVE_WITHIN, Leaving, Turn};
use crate::error::{CommandError, Kind};
use crate::outcome;
use crate::session::cursor::Chunk;
use crate::session::missing_output;
use crate::session::signals::{Action, Incoming};
use crate::session::terminal::{self, RawMode};
use crate::view::execution;

impl Follower<'_> {
    pub(super) fn on_accepted(&mut self, accepted: Accepted) -> Result<(), CommandError> {
        if self.latest.is_none() {
            self.stdin.window.begin_at(accepted.stdin_received);
        } else if self.plan.stdin && !self.stdin.window.resume_at(accepted.stdin_offset) {
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

    pub(super) fn on_state(&mut self, execution: Execution) -> Result<(), CommandError> {
        if execution.state() == ExecutionState::ExecutionQueued && self.ui.is_watched() {
            self.ui.note_again("queue", "waiting for a free place");
        }
        self.latest = Some(execution);
        if self.is_running() {
            self.take_terminal()?;
        }
        Ok(())
    }

    /// From when the command runs our terminal is its: until then Ctrl-C is ours.
    pub(super) fn take_terminal(&mut self) -> Result<(), CommandError> {
        if self.raw.is_none() && self.plan.is_interactive() {
            self.raw = Some(RawMode::enter()?);
            self.stdin.read();
        }
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        self.latest
            .as_ref()
            .is_some_and(|execution| execution.state() == ExecutionState::ExecutionRunning)
    }

    /// Takes an event; what it has for our outputs is given back.
    pub(super) fn on_event(&mut self, event: Event) -> Option<Chunk> {
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
            Event::Notice(notice) => self.ui.remark(&execution::notice(&notice)),
            Event::Accepted(_) | Event::Finished(_) => {}
        }
        let missing = self.cursor.take_missing();
        if missing > 0 {
            missing_output(self.ui, missing);
        }
        // Nobody reads it any more.
        chunk.filter(|_| self.leaving.is_none())
    }

    pub(super) fn on_signal(&mut self, incoming: Incoming) -> Option<Turn> {
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

    pub(super) fn push_size(&mut self) {
        let Some((rows, columns)) = terminal::size() else {
            return;
        };
        self.control
            .retain(|request| !matches!(request, Request::Resize(_)));
        self.control
            .push_back(Request::Resize(Resize { rows, columns }));
    }

    /// Cancels the execution and gives it a short time to end.
    pub(super) fn leave(&mut self, error: CommandError) {
        self.control.push_front(Request::Cancel(CancelNow {}));
        self.leaving.get_or_insert(Leaving {
            deadline: Instant::now() + LEAVE_WITHIN,
            error,
        });
    }

    pub(super) fn on_input(&mut self, typed: Option<Bytes>) -> Option<Turn> {
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

    pub(super) fn next_request(&mut self) -> Option<Request> {
        self.control
            .pop_front()
            .or_else(|| self.stdin.window.next_request())
    }
}
