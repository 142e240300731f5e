//! The task that owns one execution, from the queue to its last record.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::directory::Shared;
use super::ending::{self, Ask, Kill};
use super::link::{Link, Outbox, attach_request, start_request};
use super::live::Live;
use super::oom::{self, OomBaseline};
use super::places::Held;
use super::pump::{Pumped, at};
use super::stdin::StdinBuffer;
use super::{Control, StdinPiece, StdinProgress};
use crate::callback::Session;
use crate::model::{
    Ending, Environment, ExecutionFacts, ExecutionReason, ExecutionState, SandboxState, UnixMillis,
};
use crate::output::OutputLog;
use crate::sandbox::{NewSandbox, Sandbox, SandboxView, Use, is_session_lost, is_settled};
use crate::state_dir::Trouble;
use crate::units::show_size;

/// How long a caller whose stream was cut may take to come back.
const CALLER_ABSENCE: Duration = Duration::from_secs(10);
/// A stream that breaks while its session lives is tried again after this.
const RELINK_DELAY: Duration = Duration::from_millis(100);
const RELINKS_MAX: u32 = 20;

/// What the runner starts from.
pub(super) struct Seed {
    pub(super) facts: ExecutionFacts,
    pub(super) environment: Environment,
    pub(super) held: Held,
    pub(super) place: SeedPlace,
    pub(super) log: OutputLog,
    pub(super) live: Arc<Live>,
    /// The process was started by an earlier life of the gateway, in this boot if it is known.
    pub(super) resumed: bool,
}

pub(super) enum SeedPlace {
    Existing(Sandbox),
    /// To be made once there is a place.
    Planned(Box<NewSandbox>),
}

pub(super) struct Channels {
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) stdin: mpsc::Receiver<StdinPiece>,
    pub(super) stdin_progress: watch::Sender<Option<StdinProgress>>,
    pub(super) view: watch::Sender<Arc<ExecutionFacts>>,
}

pub(super) type Final = (ExecutionState, Ending);

pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) facts: ExecutionFacts,
    pub(super) environment: Environment,
    pub(super) log: OutputLog,
    pub(super) live: Arc<Live>,
    pub(super) channels: Channels,
    pub(super) stdin: StdinBuffer,
    pub(super) outbox: Outbox,
    pub(super) kill: Option<Kill>,
    pub(super) kill_grace: Duration,
    /// Of its sandbox, while it ran.
    pub(super) asked: Option<Ask>,
    /// Calls that kill; true when the supervisor says that nothing of the tree is left.
    pub(super) children: JoinSet<bool>,
    pub(super) tree_is_dead: bool,
    /// The boot in which the process was started.
    pub(super) boot: Option<[u8; 16]>,
    /// It was asked for, and the answer is not known.
    pub(super) may_have_begun: bool,
    pub(super) resumed: bool,
    pub(super) timeout_at: Option<Instant>,
    /// Killing takes no longer than this; then the sandbox is given up.
    pub(super) kill_deadline: Option<Instant>,
    pub(super) absent_at: Option<Instant>,
    pub(super) oom: OomBaseline,
    /// What keeps its output, or its record, from being stored.
    pub(super) stalled: Option<Trouble>,
    /// Output is not stored any more, only counted.
    pub(super) is_discarding: bool,
    pub(super) discarded: u64,
    stage_start: Instant,
    pub(super) held: Held,
}

/// Runs until the execution has ended and is stored. Ends early, with everything in place for a
/// later life of the gateway, when the gateway shuts down.
pub(super) async fn run(shared: Arc<Shared>, seed: Seed, channels: Channels) {
    let cancel = shared.cancel.clone();
    let timeout_at = seed.resumed.then(|| time_left(&seed.facts)).flatten();
    let mut runner = Runner {
        shared,
        facts: seed.facts,
        environment: seed.environment,
        log: seed.log,
        live: seed.live,
        channels,
        stdin: StdinBuffer::default(),
        outbox: Outbox::default(),
        kill: None,
        kill_grace: Duration::ZERO,
        asked: None,
        children: JoinSet::new(),
        tree_is_dead: false,
        boot: None,
        may_have_begun: false,
        resumed: seed.resumed,
        timeout_at,
        kill_deadline: None,
        absent_at: None,
        oom: OomBaseline::default(),
        stalled: None,
        is_discarding: false,
        discarded: 0,
        stage_start: Instant::now(),
        held: seed.held,
    };
    tokio::select! {
        () = runner.whole_life(seed.place) => {}
        // Dropped here: nothing is half-written, since appends and records are whole steps.
        () = cancel.cancelled() => {}
    }
    runner.shared.forget(&runner.facts.id);
}

/// Of an execution that an earlier life of the gateway has started.
fn time_left(facts: &ExecutionFacts) -> Option<Instant> {
    let timeout = Duration::from_millis(facts.timeout_ms);
    if timeout.is_zero() || facts.state != ExecutionState::Running {
        return None;
    }
    Some(Instant::now() + facts.start_time.after(timeout).remaining())
}

impl Runner {
    async fn whole_life(&mut self, place: SeedPlace) {
        let (sandbox, (state, ending)) = match self.claim(place).await {
            Ok(sandbox) => {
                let _activity = sandbox.activity(Use::Execution);
                let end = self.in_sandbox(&sandbox).await;
                (Some(sandbox), end)
            }
            Err(end) => (self.shared.sandboxes.get(&self.facts.sandbox_id), end),
        };
        let ending = match &sandbox {
            Some(sandbox) => self.end_what_lives(sandbox, ending).await,
            None => ending,
        };
        if !self.finish(state, ending).await {
            self.persist_end_at_last().await;
        }
        let Some(sandbox) = sandbox else {
            return;
        };
        if self.facts.one_shot {
            let message = format!("its execution {} has ended", self.facts.id);
            if sandbox.dismiss("EXECUTION_ENDED", message).await.is_ok() {
                // Gone already is fine, too.
                let _gone = sandbox.leaving().await;
            }
        } else {
            // From here on the store knows everything that the runner knows.
            self.shared.forget(&self.facts.id);
            self.forget_process(&sandbox).await;
        }
    }

    /// A place, then a sandbox.
    async fn claim(&mut self, place: SeedPlace) -> Result<Sandbox, Final> {
        if self.held.is_nothing() && !self.resumed {
            self.queue_for(&place).await?;
        }
        if self.facts.state == ExecutionState::Queued {
            self.facts.stages.queued_us = self.end_stage();
            self.facts.state = ExecutionState::Claiming;
            self.persist_claim().await?;
            self.publish();
        }
        match place {
            SeedPlace::Existing(sandbox) => Ok(sandbox),
            SeedPlace::Planned(mut new) => {
                new.facts.spec.expire_time = UnixMillis::now().after(new.lifetime);
                let sandboxes = self.shared.sandboxes.clone();
                sandboxes.create(*new, None).await.map_err(|error| {
                    let message = format!("its sandbox could not be made: {error}");
                    let ending = ending::plain(ExecutionReason::SandboxFailed, message);
                    (ExecutionState::Failed, ending)
                })
            }
        }
    }

    async fn in_sandbox(&mut self, sandbox: &Sandbox) -> Final {
        let mut view = sandbox.watch();
        let mut last_session = None;
        let mut relinks = 0;
        loop {
            let has_begun = self.has_begun();
            if !has_begun && view.borrow().facts.state != SandboxState::Ready {
                // Others run while it waits for its driver.
                self.held.running = None;
            }
            let session = match self.ready_session(&mut view).await {
                Ok(session) => session,
                Err(end) => return end,
            };
            if self.may_have_begun
                && self.boot.is_none()
                && let Some(kill) = self.kill.clone()
            {
                // Not started again, only to be killed.
                self.kill_unconfirmed(&session).await;
                return ending::of_kill(&kill);
            }
            if !has_begun && self.held.running.is_none() {
                match self.shared.places.running().try_acquire_owned() {
                    Ok(permit) => self.held.running = Some(permit),
                    Err(_) => {
                        if let Err(end) = self.queue_to_run().await {
                            return end;
                        }
                        // The session may be another by now.
                        continue;
                    }
                }
            }
            if self.boot.is_some_and(|boot| boot != session.boot_id()) {
                self.tree_is_dead = true;
                return ending::lost("its sandbox was started anew while it ran");
            }
            // A stream may break while the session lives: try again, but not for ever.
            if last_session == Some(session.id()) {
                relinks += 1;
                if relinks > RELINKS_MAX {
                    return ending::lost("the supervisor keeps breaking its stream off");
                }
                tokio::time::sleep(RELINK_DELAY).await;
            } else {
                last_session = Some(session.id());
                relinks = 0;
            }
            match self.on_session(&session, sandbox, &mut view).await {
                Pumped::Ended(end) => return end,
                Pumped::Cut(message) => {
                    info!(execution.id = %self.facts.id, message, "process stream cut");
                }
            }
        }
    }

    /// What its driver has counted.
    pub(super) fn oom_count(
        &self,
        sandbox: &Sandbox,
    ) -> impl Future<Output = Option<u64>> + Send + use<> {
        let driver = self.shared.drivers.get(&self.facts.driver);
        oom::count(driver, sandbox.clone())
    }

    /// Something of it may run in the sandbox.
    pub(super) fn has_begun(&self) -> bool {
        self.boot.is_some() || self.resumed || self.may_have_begun
    }

    async fn on_session(
        &mut self,
        session: &Session,
        sandbox: &Sandbox,
        view: &mut watch::Receiver<Arc<SandboxView>>,
    ) -> Pumped {
        let known = self.boot.is_some() || self.resumed;
        let first = if known {
            attach_request(&self.facts, self.received())
        } else {
            if !session.counts_oom_kills() && oom::is_counted(sandbox) {
                self.oom.take(self.oom_count(sandbox));
            }
            start_request(&self.facts, &self.environment)
        };
        let open = Link::open(session, first);
        let opened = match self.interruptible(open, known).await {
            Ok(opened) => opened,
            Err(end) => {
                self.kill_unconfirmed(session).await;
                return Pumped::Ended(end);
            }
        };
        let pumped = match opened {
            Ok(link) => return self.pump(link, session, sandbox, view).await,
            Err(status) => Self::not_opened(&status, known),
        };
        self.may_have_begun |= matches!(pumped, Pumped::Cut(_));
        pumped
    }

    fn not_opened(status: &tonic::Status, known: bool) -> Pumped {
        use tonic::Code;
        let message = status.message();
        match status.code() {
            Code::NotFound | Code::OutOfRange if known => {
                Pumped::Ended(ending::lost(format!("the supervisor says: {message}")))
            }
            Code::InvalidArgument | Code::ResourceExhausted if !known => {
                let ending = ending::plain(ExecutionReason::StartFailed, message.to_owned());
                Pumped::Ended((ExecutionState::Failed, ending))
            }
            code => Pumped::Cut(format!("{code:?}: {message}")),
        }
    }

    /// The sandbox's session, or why there will be none.
    async fn ready_session(
        &mut self,
        view: &mut watch::Receiver<Arc<SandboxView>>,
    ) -> Result<Session, Final> {
        let (started, asked) = (self.has_begun(), self.asked);
        let mut view = view.clone();
        let wait = async move {
            loop {
                let now = view.borrow_and_update().clone();
                // What runs may outlive the wait for a session; what is to be started does not wait.
                let is_hopeless = !started && is_session_lost(&now.facts);
                if is_settled(now.facts.state) || is_hopeless {
                    return Err(ending::of_sandbox_end(&now.facts, asked, started));
                }
                if let Some(session) = now.session.clone()
                    && now.facts.state == SandboxState::Ready
                {
                    return Ok(session);
                }
                if view.changed().await.is_err() {
                    return Err(ending::lost("its sandbox's task is gone"));
                }
            }
        };
        match (self.interruptible(wait, started).await?, &self.kill) {
            (Err(_), Some(kill)) => Err(ending::of_kill(kill)),
            (found, _) => found,
        }
    }

    /// Waits for something while the caller may cancel, leave or send. A process that has been
    /// started is not given up by a kill: the kill waits for the session that can carry it out, as
    /// long as a session may take.
    pub(super) async fn interruptible<T>(
        &mut self,
        what: impl Future<Output = T>,
        started: bool,
    ) -> Result<T, Final> {
        tokio::pin!(what);
        let mut primary = self.live.primary();
        loop {
            self.note_presence(*primary.borrow_and_update());
            tokio::select! {
                done = &mut what => return Ok(done),
                Some(control) = self.channels.control.recv() => match control {
                    Control::Cancel { grace } => {
                        self.intend_kill(Kill::Canceled, grace);
                    }
                    Control::Signal(_) | Control::Resize { .. } if started => self.later(control),
                    Control::Signal(_) | Control::Resize { .. } => self.early(control),
                },
                Some(piece) = self.channels.stdin.recv(), if self.takes_stdin() => {
                    if let Err(kill) = self.take_stdin(piece) {
                        self.intend_kill(kill, Duration::ZERO);
                    }
                }
                Ok(()) = primary.changed() => {}
                () = at(self.absent_at) => {
                    self.facts.detachable = true;
                    self.intend_kill(Kill::CallerLeft, self.shared.cancel_grace);
                }
                () = at(self.timeout_at) => {
                    self.timeout_at = None;
                    self.intend_kill(self.timeout(), self.shared.cancel_grace);
                }
                // The session that was to carry it out is gone, and there is no other.
                () = at(self.kill_deadline) => {
                    let kill = self.kill.as_ref().unwrap_or(&Kill::Canceled);
                    return Err(ending::of_kill(kill));
                }
            }
            match &self.kill {
                Some(kill) if !started => return Err(ending::of_kill(kill)),
                Some(_) => {
                    let patience = self.kill_grace + self.shared.session_timeout;
                    self.kill_deadline
                        .get_or_insert_with(|| Instant::now() + patience);
                }
                None => {}
            }
        }
    }

    /// Before the process runs a signal ends the execution as it would end the process.
    fn early(&mut self, control: Control) {
        match control {
            Control::Signal(1 | 2 | 3 | 9 | 15) => self.kill = Some(Kill::Canceled),
            Control::Resize { rows, columns } => {
                if let Some(pty) = &mut self.facts.pty {
                    (pty.rows, pty.columns) = (rows, columns);
                }
            }
            _ => {}
        }
    }

    /// The first reason counts; a later kill may only be harder. True: there is something new.
    pub(super) fn intend_kill(&mut self, kill: Kill, grace: Duration) -> bool {
        let is_first = self.kill.is_none();
        if is_first || grace < self.kill_grace {
            self.kill_grace = grace;
        }
        self.kill.get_or_insert(kill);
        is_first
    }

    /// Between two sessions: it is sent on the next one.
    fn later(&mut self, control: Control) {
        use cofferdam_proto::supervisor::v1::{WindowSize, process_request::Request};
        match control {
            Control::Signal(signal) => self.queue(Request::Signal(signal)),
            Control::Resize { rows, columns } => {
                self.queue(Request::Resize(WindowSize { rows, columns }));
            }
            Control::Cancel { .. } => {}
        }
    }

    /// Before it is known what an earlier gateway had sent, nothing can be put in its place.
    pub(super) fn takes_stdin(&self) -> bool {
        let is_known = !self.resumed || self.boot.is_some();
        is_known && self.stdin.has_room()
    }

    /// Of stdin with a hole the process is not to have the rest, nor an end: it is killed.
    pub(super) fn take_stdin(&mut self, piece: StdinPiece) -> Result<(), Kill> {
        let taken = match piece {
            StdinPiece::Data { offset, data } => self.stdin.push(offset, data),
            StdinPiece::Eof { offset } => self.stdin.finish(offset),
        };
        taken.map_err(|gap| {
            warn!(execution.id = %self.facts.id, %gap, "stdin has a hole");
            Kill::StdinLost(gap)
        })?;
        self.publish_stdin();
        Ok(())
    }

    pub(super) fn publish_stdin(&self) {
        let progress = Some(self.stdin.progress());
        self.channels.stdin_progress.send_if_modified(|known| {
            let is_news = *known != progress;
            *known = progress;
            is_news
        });
    }

    /// Somebody who started it without `detachable` has to stay, or to come back soon.
    pub(super) fn note_presence(&mut self, primary: super::live::Primary) {
        if self.facts.detachable || primary.present {
            self.absent_at = None;
        } else if self.absent_at.is_none() {
            self.absent_at = Some(Instant::now() + CALLER_ABSENCE);
        }
    }

    pub(super) fn end_stage(&mut self) -> u64 {
        let now = Instant::now();
        let spent = now - self.stage_start;
        self.stage_start = now;
        u64::try_from(spent.as_micros()).unwrap_or(u64::MAX)
    }

    fn count_output(&mut self) {
        self.facts.output.bytes = self.received();
        self.facts.output.dropped_bytes = self.log.dropped() + self.discarded;
    }

    pub(super) fn publish(&mut self) {
        self.count_output();
        self.channels
            .view
            .send_replace(Arc::new(self.facts.clone()));
    }

    /// Stores the end before anybody hears of it. False: it was told first, and is not stored.
    async fn finish(&mut self, state: ExecutionState, mut ending: Ending) -> bool {
        let spent = self.end_stage();
        match self.facts.state {
            ExecutionState::Queued => self.facts.stages.queued_us = spent,
            ExecutionState::Claiming => self.facts.stages.claiming_us = spent,
            _ => self.facts.stages.running_us = spent,
        }
        self.facts.state = state;
        self.facts.end_time = UnixMillis::now();
        self.count_output();
        if self.discarded > 0 {
            let bytes = show_size(self.discarded);
            let more = format!("; the last {bytes} of its output were not stored");
            ending.message.push_str(&more);
        }
        info!(
            execution.id = %self.facts.id,
            sandbox.id = %self.facts.sandbox_id,
            state = state.name(),
            reason = ending.reason.name(),
            exit_code = ending.exit_code,
            signal = ending.signal,
            "execution ended"
        );
        self.facts.ending = Some(ending);
        let stored = self.persist_end().await;
        self.publish();
        self.held = Held::default();
        stored
    }

    /// The supervisor's record is given back, off the caller's path.
    async fn forget_process(&self, sandbox: &Sandbox) {
        let Some(session) = sandbox.view().session.clone() else {
            return;
        };
        let request = cofferdam_proto::supervisor::v1::ForgetProcessRequest {
            process_id: self.facts.id.to_string(),
        };
        let mut client = session.client();
        let forget = client.forget_process(request);
        if let Ok(Err(status)) = tokio::time::timeout(Duration::from_secs(5), forget).await {
            info!(execution.id = %self.facts.id, %status, "the supervisor keeps the ended process");
        }
    }
}
