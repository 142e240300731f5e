//! The one task that owns a sandbox: it feeds events to `step` and performs the effects.
//!
//! Driver calls and configuration run as children of the task, so that a delete never waits for a
//! create. Everything that the rest of the gateway may know is published through a watch channel.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::effects::STORE_RETRY;
use super::look::Look;
use super::readiness::SessionState;
use super::state::{Call, Effect, Event, Seen, State, Wanted, step};
use super::wishes::{Begun, Postponed};
use super::{Command, InUse, SandboxView, Shared, Slot};
use crate::callback::{Callback, CallbackOptions, Session, Tokens};
use crate::model::{
    Environment, Handle, Observation, OperationId, SandboxFacts, SandboxState, Token, UnixMillis,
};
use crate::store::{StoreError, Storing};

/// What a task starts from.
pub(super) struct Seed {
    pub(super) facts: SandboxFacts,
    pub(super) tokens: Tokens,
    pub(super) environment: Environment,
    /// True: from the store, of an earlier life of the gateway.
    pub(super) resumed: bool,
}

/// Its ends of the channels.
pub(super) struct Channels {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) slot: watch::Receiver<Slot>,
    pub(super) view: watch::Sender<Arc<SandboxView>>,
    pub(super) activity: watch::Receiver<InUse>,
    pub(super) cancel: CancellationToken,
}

/// The result of a child: an event, and what came with it.
pub(super) struct Outcome {
    pub(super) event: Event,
    pub(super) handle: Option<Handle>,
    pub(super) observation: Option<Observation>,
    /// Of a look, which is no answer to a call.
    pub(super) incarnation: Option<String>,
}

impl Outcome {
    pub(super) fn event(event: Event) -> Self {
        Self {
            event,
            handle: None,
            observation: None,
            incarnation: None,
        }
    }
}

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) state: State,
    pub(super) facts: SandboxFacts,
    pub(super) environment: Environment,
    pub(super) token: Token,
    pub(super) grace: Duration,
    pub(super) operation: Option<OperationId>,
    /// On record together with the wish that it carries out.
    pub(super) begun: Option<Begun>,
    pub(super) postponed: Option<Postponed>,
    /// The newest record, on its way into the store.
    pub(super) storing: Option<Storing>,
    /// What has changed since is not on record yet.
    pub(super) store_again_at: Option<Instant>,
    pub(super) callback: Option<Callback>,
    pub(super) session: Option<Session>,
    pub(super) view: watch::Sender<Arc<SandboxView>>,
    pub(super) calls: JoinSet<Outcome>,
    pub(super) driver_call: Option<AbortHandle>,
    pub(super) configure_call: Option<AbortHandle>,
    /// A create or start of this life of the gateway.
    pub(super) booted_here: bool,
    pub(super) ready_deadline: Option<Instant>,
    pub(super) retry_at: Option<Instant>,
    pub(super) look: Look,
    pub(super) idle_since: Option<Instant>,
    pub(super) incarnation: String,
    pub(super) revision: u64,
}

/// Runs until the sandbox is gone, or the gateway ends (which leaves the sandbox as it is).
pub(super) async fn run(shared: Arc<Shared>, seed: Seed, mut channels: Channels) {
    let mut task = Task::new(shared, &seed, channels.view);
    let mut session = task.open_callback(seed.tokens, &channels.cancel).await;
    let first = if seed.resumed {
        Event::Resume
    } else {
        Event::Begin
    };
    if task.callback.is_some() {
        task.handle(Outcome::event(first)).await;
    }
    while task.state.phase != SandboxState::Deleted {
        let (ready, retry, idle) = (task.ready_deadline, task.retry_at, task.idle_deadline());
        let (expire, store_again) = (task.expire_time(), task.store_again_at);
        let postponed = task.postponed.as_ref().map(|postponed| postponed.until);
        let (look, untold) = (task.look.at, task.look.untold_at());
        tokio::select! {
            () = channels.cancel.cancelled() => break,
            command = channels.commands.recv() => match command {
                Some(command) => task.command(command).await,
                None => break,
            },
            Some(done) = task.calls.join_next_with_id() => task.child_ended(done).await,
            Ok(()) = channels.slot.changed() => {
                let slot = channels.slot.borrow_and_update().clone();
                task.slot_changed(slot).await;
            }
            changed = next_session(&mut session) => task.session_changed(changed).await,
            Ok(()) = channels.activity.changed() => {
                let uses = *channels.activity.borrow_and_update();
                task.activity_changed(uses);
            }
            () = at(ready) => {
                task.ready_deadline = None;
                let driver = task.describe_driver();
                let is_away = task.is_driver_away();
                task.handle(Outcome::event(Event::ReadyTimeout { driver, is_away })).await;
            }
            () = at(retry) => {
                task.retry_at = None;
                task.handle(Outcome::event(Event::Retry)).await;
            }
            () = at(look) => task.look_now(),
            () = at(untold) => {
                let slot = channels.slot.borrow().clone();
                task.judge_untold(&slot);
            }
            () = wall_clock(expire) => task.expired().await,
            () = at(idle) => task.idle().await,
            () = at(postponed) => task.postponed_is_due().await,
            () = at(store_again) => task.persist().await,
            stored = stored(&mut task.storing) => task.persisted(stored),
        }
    }
    // Dropping the calls here leaves at most an unanswered, idempotent call, which a resumed
    // task settles. The callback directory stays while the sandbox does.
    task.calls.shutdown().await;
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => pending().await,
    }
}

/// Wall-clock time is looked at again every minute, since it may be set.
async fn wall_clock(instant: Option<UnixMillis>) {
    let Some(instant) = instant else {
        return pending().await;
    };
    loop {
        let left = instant.remaining();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(60))).await;
    }
}

/// Cancelled, it can be asked again.
async fn stored(storing: &mut Option<Storing>) -> Result<(), StoreError> {
    let Some(write) = storing else {
        return pending().await;
    };
    let stored = write.done().await;
    *storing = None;
    stored
}

async fn next_session(session: &mut Option<watch::Receiver<Option<Session>>>) -> Option<Session> {
    let Some(receiver) = session else {
        return pending().await;
    };
    if receiver.changed().await.is_err() {
        *session = None;
        return None;
    }
    receiver.borrow_and_update().clone()
}

impl Task {
    fn new(shared: Arc<Shared>, seed: &Seed, view: watch::Sender<Arc<SandboxView>>) -> Self {
        let facts = seed.facts.clone();
        let mut state = State::new(facts.state, facts.reason.clone(), facts.message.clone());
        if let Some(observed) = &facts.observed {
            state.boots = observed.boots;
        }
        Self {
            shared,
            state,
            facts,
            environment: seed.environment.clone(),
            token: seed.tokens.current.clone(),
            grace: Duration::from_secs(10),
            operation: None,
            begun: None,
            postponed: None,
            storing: None,
            store_again_at: None,
            callback: None,
            session: None,
            view,
            calls: JoinSet::new(),
            driver_call: None,
            configure_call: None,
            booted_here: false,
            ready_deadline: None,
            retry_at: None,
            look: Look::default(),
            idle_since: Some(Instant::now()),
            incarnation: String::new(),
            revision: 0,
        }
    }

    async fn open_callback(
        &mut self,
        initial: Tokens,
        cancel: &CancellationToken,
    ) -> Option<watch::Receiver<Option<Session>>> {
        let options = CallbackOptions {
            runtime_dir: self.shared.runtime_dir.clone(),
            sandbox_id: self.facts.id.clone(),
            gateway_id: self.shared.gateway_id.clone(),
            tokens: self.shared.token_store.clone(),
            initial,
            tasks: self.shared.tasks.clone(),
            cancel: cancel.clone(),
        };
        match Callback::open(options).await {
            Ok(callback) => {
                let session = callback.session();
                self.callback = Some(callback);
                Some(session)
            }
            Err(error) => {
                warn!(sandbox.id = %self.facts.id, %error, "no callback socket");
                self.state.phase = SandboxState::Failed;
                self.state.wanted = Wanted::Stopped;
                self.state.reason = "GATEWAY_FAULT".into();
                self.state.message = format!("the gateway could not make its socket: {error}");
                self.persist().await;
                self.publish();
                None
            }
        }
    }

    pub(super) async fn handle(&mut self, outcome: Outcome) {
        if let Some(handle) = outcome.handle {
            self.facts.handle = Some(handle);
        }
        if let Some(observation) = outcome.observation {
            self.revision = observation.revision;
            self.facts.observed = Some(observation);
        }
        let before = self.state.phase;
        let effects = step(&mut self.state, outcome.event);
        self.sync_facts(before);
        self.log_change(before);
        self.carry_out(effects).await;
    }

    pub(super) fn log_change(&self, before: SandboxState) {
        if self.state.phase != before {
            info!(
                sandbox.id = %self.facts.id,
                driver.name = %self.facts.driver,
                from = before.name(),
                to = self.state.phase.name(),
                reason = self.state.reason,
                message = self.state.message,
                "sandbox state"
            );
        }
    }

    pub(super) async fn carry_out(&mut self, effects: Vec<Effect>) {
        // What was only observed may be seen before it is stored; what is about to be done may not.
        let acts = effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Create | Effect::Start | Effect::Stop | Effect::Delete | Effect::Remove
            )
        });
        if !acts {
            self.publish();
        }
        for effect in effects {
            self.perform(effect).await;
        }
        if acts {
            self.publish();
        }
    }

    pub(super) fn sync_facts(&mut self, before: SandboxState) {
        self.facts.state = self.state.phase;
        self.facts.reason.clone_from(&self.state.reason);
        self.facts.message.clone_from(&self.state.message);
        if self.state.phase == before {
            return;
        }
        self.facts.state_time = UnixMillis::now();
        if self.state.phase == SandboxState::Ready {
            if self.facts.ready_time == UnixMillis::default() {
                self.facts.ready_time = self.facts.state_time;
            }
            self.idle_since.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn publish(&self) {
        let session = self
            .session
            .clone()
            .filter(|_| self.state.session == SessionState::Configured);
        self.view.send_replace(Arc::new(SandboxView {
            facts: self.facts.clone(),
            session,
            callback_directory: self.callback_directory(),
        }));
    }

    pub(super) fn callback_directory(&self) -> PathBuf {
        self.callback
            .as_ref()
            .map(|callback| callback.directory().to_path_buf())
            .unwrap_or_default()
    }

    /// What was seen goes on, stored or not; the record catches up. What is stored later, an intent
    /// for instance, is stored after it.
    pub(super) async fn persist(&mut self) {
        match self.shared.store.post_sandbox(&self.facts).await {
            // An earlier one on its way is outdated, and so is its outcome.
            Ok(storing) => {
                self.storing = Some(storing);
                self.store_again_at = None;
            }
            Err(error) => self.persisted(Err(error)),
        }
    }

    fn persisted(&mut self, stored: Result<(), StoreError>) {
        if let Err(error) = stored {
            self.not_stored(&error, "the sandbox's record");
            self.store_again_at = Some(Instant::now() + STORE_RETRY);
        }
    }

    async fn child_ended(&mut self, done: Result<(Id, Outcome), JoinError>) {
        match done {
            Ok((id, outcome)) => {
                let binds = matches!(outcome.event, Event::Configured(_));
                if binds
                    && self
                        .configure_call
                        .take_if(|call| call.id() == id)
                        .is_none()
                {
                    return; // Of an earlier session.
                }
                if is_driver_answer(&outcome.event) {
                    self.driver_call = None;
                    self.end_operation().await;
                }
                let is_look =
                    outcome.incarnation.is_some() || matches!(outcome.event, Event::Unseen(_));
                if is_look && !self.looked(&outcome) {
                    return;
                }
                if self.is_stale(&outcome.event) {
                    debug!(sandbox.id = %self.facts.id, "an answer to a call that was replaced");
                    return;
                }
                self.handle(outcome).await;
            }
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                warn!(sandbox.id = %self.facts.id, %error, "a driver call panicked");
                if self.state.call.is_some() {
                    self.retry_at = Some(Instant::now() + Duration::from_secs(1));
                }
            }
        }
    }

    /// An aborted call may still have finished just before.
    fn is_stale(&self, event: &Event) -> bool {
        let answers = match event {
            Event::Created(_) => Call::Create,
            Event::Settled(_) => Call::Settle,
            Event::Started(_) => Call::Start,
            Event::StopEnded(_) => Call::Stop,
            Event::DeleteEnded(_) => Call::Delete,
            _ => return false,
        };
        self.state.call != Some(answers)
    }

    async fn slot_changed(&mut self, slot: Slot) {
        if let Some(observation) = slot.observation {
            let old = slot.incarnation == self.incarnation && observation.revision < self.revision;
            if !old {
                self.incarnation = slot.incarnation;
                let seen = Seen::from(&observation);
                self.handle(Outcome {
                    event: Event::Observed(seen),
                    handle: slot.handle,
                    observation: Some(observation),
                    incarnation: None,
                })
                .await;
            }
        }
        if slot.gone.is_some() {
            self.handle(Outcome::event(Event::Gone)).await;
        }
    }

    async fn session_changed(&mut self, session: Option<Session>) {
        let earlier = std::mem::replace(&mut self.session, session);
        self.abort_configure();
        if let Some(earlier) = earlier {
            let down = Event::SessionDown(earlier.end_reason());
            self.handle(Outcome::event(down)).await;
        }
        if self.session.is_some() {
            debug!(sandbox.id = %self.facts.id, "supervisor session up");
            self.handle(Outcome::event(Event::SessionUp)).await;
        }
    }

    fn activity_changed(&mut self, uses: InUse) {
        self.idle_since = (uses == InUse::default()).then(Instant::now);
    }

    fn idle_deadline(&self) -> Option<Instant> {
        let ready = self.state.phase == SandboxState::Ready && self.postponed.is_none();
        let patience = Duration::from_millis(self.facts.idle_timeout_ms);
        let since = self.idle_since.filter(|_| ready && !patience.is_zero())?;
        Some(since + patience)
    }

    fn expire_time(&self) -> Option<UnixMillis> {
        let is_due = self.state.wanted != Wanted::Gone && self.postponed.is_none();
        is_due.then_some(self.facts.spec.expire_time)
    }
}

fn is_driver_answer(event: &Event) -> bool {
    matches!(
        event,
        Event::Created(_)
            | Event::Settled(_)
            | Event::Started(_)
            | Event::StopEnded(_)
            | Event::DeleteEnded(_)
    )
}
