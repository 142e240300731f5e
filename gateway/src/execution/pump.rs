//! One process stream, from its first event to its end: bytes both ways, time limits, kills.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::supervisor::v1::{
    self as wire, process_event::Event, process_request::Request,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::Control;
use super::ending::{self, Ask, Kill};
use super::kill::kill_process;
use super::link::Link;
use super::live::{Chunk, Primary, WINDOW_BYTES};
use super::runner::Runner;
use super::storing::STORE_RETRY;
use crate::callback::Session;
use crate::model::{Ending, ExecutionState, SandboxFacts, UnixMillis};
use crate::output::OutputStream;
use crate::sandbox::{Sandbox, SandboxView, is_settled};

/// When a kill has not ended the process this long after its grace, the sandbox is given up.
const KILL_PATIENCE: Duration = Duration::from_secs(15);
/// The last events of a sandbox that has just ended may still be on their way.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Signals and sizes that may wait to be sent.
const CONTROL_WAITING_MAX: usize = 64;

/// How a stream came to its end.
pub(super) enum Pumped {
    Ended((ExecutionState, Ending)),
    Cut(String),
}

pub(super) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => pending().await,
    }
}

impl Runner {
    pub(super) async fn pump(
        &mut self,
        mut link: Link,
        session: &Session,
        sandbox: &Sandbox,
        view: &mut watch::Receiver<Arc<SandboxView>>,
    ) -> Pumped {
        self.outbox.rewind();
        let mut primary = self.live.primary();
        let mut last_words = None;
        let mut unstored: Option<Chunk> = None;
        let mut store_retry = None;
        if self.kill.is_some() {
            // It came between two sessions, or did not arrive on the earlier one.
            self.kill_deadline = Some(Instant::now() + self.kill_grace + KILL_PATIENCE);
            self.send_kill(session);
        }
        loop {
            let seen = *primary.borrow_and_update();
            self.note_presence(seen);
            if self.tree_is_dead && unstored.is_some() {
                self.let_go(&mut unstored);
            }
            // A dead tree writes no more: what it left is bounded, and its end is behind it.
            let may_read = unstored.is_none() && (self.tree_is_dead || !self.is_ahead_of(seen));
            let has_work = self.outbox.has_work(&self.stdin);
            tokio::select! {
                event = link.events.message(), if may_read => match event {
                    Ok(Some(event)) => match self.event(event, session, sandbox).await {
                        Next::Go => {}
                        Next::Store(chunk) => unstored = self.store(chunk),
                        Next::Stop(pumped) => return pumped,
                    },
                    Ok(None) => return self.cut("the stream ended without an exit event"),
                    Err(status) => return self.cut(status.message()),
                },
                permit = link.requests.reserve(), if has_work => match permit {
                    Ok(permit) => if let Some(request) = self.outbox.next(&mut self.stdin) {
                        permit.send(request);
                    },
                    // The other half of the stream says why.
                    Err(_) => self.outbox.rewind(),
                },
                Some(control) = self.channels.control.recv() => self.control(control, session),
                Some(piece) = self.channels.stdin.recv(), if self.takes_stdin() => {
                    if let Err(kill) = self.take_stdin(piece) {
                        self.begin_kill(kill, Duration::ZERO, session);
                    }
                }
                Some(killed) = self.children.join_next() => {
                    self.tree_is_dead |= killed.unwrap_or(false);
                }
                Ok(()) = primary.changed() => {}
                Ok(()) = view.changed() => {
                    let now = view.borrow_and_update().clone();
                    self.note_ask(&now.facts);
                    let settled = is_settled(now.facts.state);
                    if settled && last_words.is_none() {
                        last_words = Some(Instant::now() + LAST_WORDS);
                    }
                }
                () = at(store_retry), if unstored.is_some() => {
                    unstored = unstored.take().and_then(|chunk| self.store(chunk));
                }
                () = at(last_words) => {
                    self.let_go(&mut unstored);
                    let facts = sandbox.view().facts.clone();
                    return Pumped::Ended(self.without_report(&facts));
                }
                () = at(self.timeout_at) => self.begin_kill(self.timeout(), self.shared.cancel_grace, session),
                () = at(self.absent_at) => self.begin_kill(Kill::CallerLeft, self.shared.cancel_grace, session),
                () = at(self.kill_deadline) => {
                    self.let_go(&mut unstored);
                    return self.gave_up();
                }
            }
            if unstored.is_some() && store_retry.is_none_or(|at| at <= Instant::now()) {
                store_retry = Some(Instant::now() + STORE_RETRY);
            }
        }
    }

    /// The first counts.
    fn note_ask(&mut self, sandbox: &SandboxFacts) {
        self.asked = self.asked.or_else(|| Ask::of(sandbox));
    }

    fn is_ahead_of(&self, primary: Primary) -> bool {
        primary.present && self.log.end_offset().saturating_sub(primary.consumed) >= WINDOW_BYTES
    }

    fn cut(&self, message: &str) -> Pumped {
        Pumped::Cut(message.to_owned())
    }

    /// The sandbox ended before the process could report.
    fn without_report(&self, facts: &SandboxFacts) -> (ExecutionState, Ending) {
        match &self.kill {
            Some(kill) => ending::of_kill(kill),
            None => ending::of_sandbox_end(facts, self.asked, true),
        }
    }

    fn gave_up(&self) -> Pumped {
        let kill = self.kill.clone().unwrap_or(Kill::Canceled);
        Pumped::Ended(ending::of_kill(&kill))
    }

    async fn event(
        &mut self,
        event: wire::ProcessEvent,
        session: &Session,
        sandbox: &Sandbox,
    ) -> Next {
        match event.event {
            Some(Event::Started(started)) => self.started(&started, session).await,
            Some(Event::Output(output)) => return self.output(output),
            Some(Event::StdinAck(ack)) => {
                self.stdin.acknowledge(ack.offset, ack.closed);
                self.publish_stdin();
            }
            Some(Event::Exited(exited)) => {
                let ended = self.exited(&exited, sandbox).await;
                self.tree_ended(session).await;
                return Next::Stop(Pumped::Ended(ended));
            }
            // Of a later protocol.
            None => {}
        }
        Next::Go
    }

    async fn started(&mut self, started: &wire::ProcessStarted, session: &Session) {
        self.stdin.rewind(started.stdin_offset);
        self.boot = Some(session.boot_id());
        self.publish_stdin();
        if self.facts.state == ExecutionState::Running {
            return;
        }
        self.facts.stages.claiming_us = self.end_stage();
        self.facts.state = ExecutionState::Running;
        self.facts.start_time = UnixMillis::now();
        if self.facts.timeout_ms > 0 {
            let timeout = Duration::from_millis(self.facts.timeout_ms);
            self.timeout_at = Some(Instant::now() + timeout);
        }
        self.publish();
        // Nobody waits until that is stored: what is on record is enough to look for it, and how it
        // ends is stored after it. An error says that the gateway is ending.
        let _ending = self.shared.store.post_execution(&self.facts).await;
    }

    fn output(&mut self, output: wire::OutputData) -> Next {
        let end = self.received();
        if output.offset > end {
            // Never stored as if it were whole.
            let message = format!("output continues at {} after {end}", output.offset);
            return Next::Stop(Pumped::Ended(ending::lost(message)));
        }
        // What comes twice after a cut is taken once.
        let known = usize::try_from(end - output.offset).unwrap_or(usize::MAX);
        if known >= output.data.len() {
            return Next::Go;
        }
        let stream = match output.stream() {
            wire::OutputStream::Stderr => OutputStream::Stderr,
            _ => OutputStream::Stdout,
        };
        Next::Store(Chunk {
            offset: end,
            stream,
            data: output.data.slice(known..),
        })
    }

    async fn exited(
        &mut self,
        exited: &wire::ProcessExited,
        sandbox: &Sandbox,
    ) -> (ExecutionState, Ending) {
        if exited.output_bytes != self.received() {
            let message = format!(
                "the process wrote {} bytes, of which {} arrived",
                exited.output_bytes,
                self.received()
            );
            return ending::lost(message);
        }
        self.facts.cpu_user_us = Some(exited.cpu_user_us);
        self.facts.cpu_system_us = Some(exited.cpu_system_us);
        self.facts.max_rss_bytes = Some(exited.max_rss_bytes);
        // A sandbox's task tells that it is to end before it does anything about it.
        self.note_ask(&sandbox.view().facts);
        let by_itself = self.kill.is_none() && self.asked.is_none();
        let oom = by_itself && ending::may_be_oom(exited) && self.was_oom(exited, sandbox).await;
        ending::of_exit(exited, self.kill.as_ref(), self.asked, oom)
    }

    /// After a kill the process may have ended politely and what it started may not: nothing is
    /// over before the supervisor says so.
    async fn tree_ended(&mut self, session: &Session) {
        loop {
            tokio::select! {
                ended = self.children.join_next() => match ended {
                    Some(ended) => self.tree_is_dead |= ended.unwrap_or(false),
                    None => return,
                },
                // A caller who has lost patience.
                Some(control) = self.channels.control.recv() => self.control(control, session),
                () = at(self.kill_deadline) => return,
            }
        }
    }

    /// Has the kernel killed for want of memory since before the process was started?
    async fn was_oom(&mut self, exited: &wire::ProcessExited, sandbox: &Sandbox) -> bool {
        match exited.oom_kills {
            Some(kills) => kills > 0,
            None => {
                let now = self.oom_count(sandbox);
                self.oom.grew(now).await
            }
        }
    }

    fn control(&mut self, control: Control, session: &Session) {
        match control {
            Control::Signal(signal) => self.queue(Request::Signal(signal)),
            Control::Resize { rows, columns } => {
                self.queue(Request::Resize(wire::WindowSize { rows, columns }));
            }
            Control::Cancel { grace } => self.begin_kill(Kill::Canceled, grace, session),
        }
    }

    pub(super) fn queue(&mut self, request: Request) {
        if self.outbox.control_waiting() < CONTROL_WAITING_MAX {
            self.outbox.control(request);
        } else {
            warn!(execution.id = %self.facts.id, "too many signals are waiting; one was dropped");
        }
    }

    fn begin_kill(&mut self, kill: Kill, grace: Duration, session: &Session) {
        self.timeout_at = None;
        self.absent_at = None;
        self.facts.detachable = true;
        if self.intend_kill(kill, grace) {
            self.kill_deadline = Some(Instant::now() + grace + KILL_PATIENCE);
        }
        // Again for a caller who asks again: the first may not have been carried out.
        self.send_kill(session);
    }

    fn send_kill(&mut self, session: &Session) {
        let (session, id) = (session.clone(), self.facts.id.clone());
        let (grace, deadline) = (self.kill_grace, self.kill_grace + KILL_PATIENCE);
        self.children
            .spawn(async move { kill_process(&session, &id, grace, deadline).await });
    }
}

/// What an event leads to.
enum Next {
    Go,
    Store(Chunk),
    Stop(Pumped),
}
