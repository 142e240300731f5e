//! Keeps in touch with the engine: connects, takes stock, follows events, and connects again.
//!
//! ```text
//!   ┌─► connect ─► subscribe ─► take stock ─► Up ─► events … ─► broken
//!   │      │ failed                                               │
//!   └──────┴── Down, with the reason and the remedy ◄─────────────┘   wait, doubling to 10 s
//! ```
//!
//! Events are subscribed to before stock is taken, so that nothing falls between them. Stock is the
//! only thing that says what is gone, and it is taken whole or not at all.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_driver_sdk::{Context, DriverError};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::client::wire::EventJson;
use crate::client::{Engine, EngineError, Kind, SLOW};
use crate::health::{Trouble, TroubleKind};
use crate::labels::{self, Record};
use crate::sandbox::{Outage, Sandboxes, Tracked, now_unix_ms};
use crate::settings::Config;

const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// How often deadlines are looked at. The supervisor keeps them to the millisecond; this is for one
/// that cannot.
const TICK: Duration = Duration::from_millis(500);

/// What the supervisor has before it is killed for its deadline.
const DEADLINE_GRACE_MS: u64 = 500;

/// An engine that lost events without losing the connection: never seen, and cheap to exclude.
const STOCK_INTERVAL: Duration = Duration::from_secs(60);

/// How many containers are looked at side by side when stock is taken.
const LOOKS_MAX: usize = 8;

/// Whether there is an engine.
#[derive(Debug, Clone)]
pub(crate) enum Link {
    /// Not known yet.
    Connecting,
    Up(Box<Engine>),
    Down(Trouble),
}

/// What keeps in touch, and what it knows. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Monitor {
    link: watch::Receiver<Link>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sandboxes: Sandboxes,
    outage: Mutex<Option<Outage>>,
    end: CancellationToken,
}

/// Named by a driver for its own engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) title: &'static str,
    pub(crate) client: &'static str,
    pub(crate) start_hint: &'static str,
}

impl Monitor {
    /// Begins in the background. It ends with the process, or when it is replaced.
    pub(crate) fn start(
        context: &Context,
        config: Arc<Config>,
        names: Names,
        sandboxes: Sandboxes,
    ) -> Self {
        let (publish, link) = watch::channel(Link::Connecting);
        let monitor = Self {
            link,
            shared: Arc::new(Shared {
                sandboxes,
                outage: Mutex::default(),
                end: context.shutdown.child_token(),
            }),
        };
        let keeper = Keeper {
            context: context.clone(),
            config,
            names,
            publish,
            monitor: monitor.clone(),
        };
        context.tasks.spawn(async move {
            let end = keeper.monitor.shared.end.clone();
            tokio::select! {
                () = keeper.keep() => {}
                () = end.cancelled() => {}
            }
        });
        monitor
    }

    /// Ends it: another one takes its place.
    pub(crate) fn end(&self) {
        self.shared.end.cancel();
    }

    pub(crate) fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// Waits for the first answer, whatever it is, at most so long.
    pub(crate) async fn first_answer(&self, at_most: Duration) {
        let mut link = self.link.clone();
        let known = link.wait_for(|link| !matches!(link, Link::Connecting));
        let _ = tokio::time::timeout(at_most, known).await;
    }

    /// The engine, or why there is none.
    pub(crate) fn engine(&self) -> Result<Engine, DriverError> {
        match &*self.link.borrow() {
            Link::Up(engine) => Ok((**engine).clone()),
            Link::Connecting => Err(DriverError::unavailable("the engine has not answered yet")),
            Link::Down(trouble) => Err(trouble.to_error()),
        }
    }

    pub(crate) fn outage(&self) -> Option<Outage> {
        *lock(&self.shared.outage)
    }
}

struct Keeper {
    context: Context,
    config: Arc<Config>,
    names: Names,
    publish: watch::Sender<Link>,
    monitor: Monitor,
}

impl Keeper {
    async fn keep(&self) {
        let mut retry = RETRY_MIN;
        loop {
            match self.find().await {
                Ok(engine) => {
                    let failed = self.follow(engine, &mut retry).await;
                    tracing::warn!(error = %failed.chain(), "the engine is away");
                    self.begin_outage();
                    self.say(Link::Down(Trouble::gone(&self.names, &failed)));
                }
                Err(trouble) => {
                    if let Link::Connecting = *self.publish.borrow() {
                        tracing::warn!(reason = trouble.message, "there is no engine");
                    }
                    // One that was there is not taken for one that never was.
                    let is_lost = self.monitor.outage().is_some();
                    if !(is_lost && trouble.kind == TroubleKind::Absent) {
                        self.say(Link::Down(trouble));
                    }
                }
            }
            sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    /// The first candidate that answers; else what is wrong with the one that is wrong least.
    async fn find(&self) -> Result<Engine, Trouble> {
        let mut worst = Trouble::nowhere(&self.names, &self.config.candidates);
        for candidate in &self.config.candidates {
            match Engine::connect(&candidate.endpoint, self.names.client).await {
                Ok(engine) => return Ok(engine),
                Err(error) => {
                    let trouble = Trouble::of(&self.names, candidate, &error);
                    if trouble.is_worth_more_than(&worst) {
                        worst = trouble;
                    }
                }
            }
        }
        Err(worst)
    }

    /// Returns when the engine is lost.
    async fn follow(&self, engine: Engine, retry: &mut Duration) -> EngineError {
        let events = match engine.events(labels::SANDBOX).await {
            Ok(events) => events,
            Err(error) => return error,
        };
        self.end_outage();
        if let Err(error) = self.take_stock(&engine).await {
            return error;
        }
        tracing::info!(
            address = engine.facts.address,
            version = engine.facts.version,
            api_version = engine.facts.api_version,
            "connected to the engine"
        );
        *retry = RETRY_MIN;
        self.say(Link::Up(Box::new(engine.clone())));
        let mut events = std::pin::pin!(events);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stock = interval(STOCK_INTERVAL);
        stock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        stock.reset();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.happened(&engine, &event).await,
                    Some(Err(error)) => return error,
                    None => return EngineError::new(
                        "watch", "events", Kind::Unreachable, "the engine ended the stream",
                    ),
                },
                _ = tick.tick() => self.enforce_deadlines(&engine).await,
                _ = stock.tick() => {
                    if let Err(error) = self.take_stock(&engine).await {
                        tracing::warn!(error = %error.chain(), "no stock could be taken");
                    }
                }
            }
        }
    }

    /// All containers of sandboxes, whosever they are: adopted, looked at, and those that are not
    /// there any more forgotten.
    async fn take_stock(&self, engine: &Engine) -> Result<(), EngineError> {
        let before = self.sandboxes().all();
        let found = engine
            .list_containers(&[labels::SANDBOX.to_owned()])
            .await?;
        let mut there = HashSet::new();
        let mut looks = Vec::new();
        for summary in &found {
            let Some(record) = Record::from_labels(&summary.labels) else {
                continue;
            };
            if self
                .sandboxes()
                .is_deleted(&record.gateway_id, &record.sandbox_id)
            {
                self.remove_late(engine, record, &summary.id);
                continue;
            }
            there.insert(summary.id.clone());
            looks.push(self.adopt(record, &summary.id));
        }
        for tracked in before {
            let container = tracked.container_id();
            let is_there = container.as_ref().is_none_or(|id| there.contains(id));
            // Made since the list was: asked for by itself.
            if !is_there && !tracked.is_being_made() {
                looks.push(tracked);
            }
        }
        let looks = looks.into_iter().map(|tracked| self.look(engine, tracked));
        let mut looks = futures_util::stream::iter(looks).buffer_unordered(LOOKS_MAX);
        while let Some(looked) = looks.next().await {
            looked?;
        }
        Ok(())
    }

    fn adopt(&self, record: Record, container_id: &str) -> Arc<Tracked> {
        let (tracked, is_new) = self.sandboxes().add(Tracked::found(record, container_id));
        if is_new {
            tracing::debug!(sandbox.id = tracked.record().sandbox_id, "found a sandbox");
        }
        tracked
    }

    async fn look(&self, engine: &Engine, tracked: Arc<Tracked>) -> Result<(), EngineError> {
        let log = &self.context.observations;
        let seen = tracked.look(engine, log, self.monitor.outage()).await?;
        if seen.is_none() {
            self.sandboxes().remove(&tracked);
            return Ok(());
        }
        self.write_down_boot(engine, &tracked).await;
        Ok(())
    }

    /// A driver that was killed right after a start has not written down that it succeeded.
    async fn write_down_boot(&self, engine: &Engine, tracked: &Tracked) {
        let name = tracked.name();
        if !name.is_starting || !tracked.is_running() {
            return;
        }
        // Whoever works on it does it himself.
        let Ok(_operation) = tracked.operation.try_lock() else {
            return;
        };
        let Some(container) = tracked.container_id() else {
            return;
        };
        let begun = name.begun();
        match engine
            .rename_container(&container, &begun.to_string())
            .await
        {
            Ok(()) => tracked.set_name(begun),
            Err(error) => tracing::warn!(error = %error.chain(), "a boot was not written down"),
        }
    }

    async fn happened(&self, engine: &Engine, event: &EventJson) {
        let Some(id) = event.actor.attributes.get(labels::SANDBOX) else {
            return;
        };
        let Some(tracked) = self.sandboxes().get(id) else {
            let record = Record::from_labels(&event.actor.attributes);
            if let Some(record) = record.filter(|record| {
                let Record {
                    gateway_id,
                    sandbox_id,
                    ..
                } = record;
                event.action == "create" && self.sandboxes().is_deleted(gateway_id, sandbox_id)
            }) {
                self.remove_late(engine, record, &event.actor.id);
            }
            return;
        };
        if tracked.container_id().as_deref() != Some(&event.actor.id) {
            return;
        }
        if event.action == "oom" {
            tracked.count_oom();
        }
        if let Err(error) = self.look(engine, tracked).await {
            tracing::warn!(sandbox.id = id, error = %error.chain(), "a change was not looked at");
        }
    }

    /// In the background: a driver that was killed had asked for it, and it was deleted before it came.
    fn remove_late(&self, engine: &Engine, record: Record, container: &str) {
        let (engine, container) = (engine.clone(), container.to_owned());
        self.context.tasks.spawn(async move {
            let sandbox_id = record.sandbox_id;
            tracing::info!(
                sandbox.id = sandbox_id,
                "deleted before it was made: removed"
            );
            let mut removed = engine.remove_container(&container, SLOW).await;
            if removed.is_ok() && !record.workspace_volume.is_empty() {
                removed = engine.remove_volume(&record.workspace_volume).await;
            }
            if let Err(error) = removed {
                // The next inventory has it.
                tracing::warn!(sandbox.id = sandbox_id, error = %error.chain(), "it is left");
            }
        });
    }

    /// The supervisor ends itself; one that is frozen or stuck is ended here.
    async fn enforce_deadlines(&self, engine: &Engine) {
        let now = now_unix_ms();
        for tracked in self.sandboxes().all() {
            let expire = tracked.expire_time_unix_ms();
            let is_over = expire > 0 && now > expire.saturating_add(DEADLINE_GRACE_MS);
            let Some(id) = tracked
                .container_id()
                .filter(|_| is_over && tracked.is_running())
            else {
                continue;
            };
            tracing::info!(
                sandbox.id = tracked.record().sandbox_id,
                "its time is over and its supervisor goes on: killed"
            );
            match engine.kill_container(&id, "SIGKILL").await {
                Err(error) if !matches!(error.kind, Kind::Conflict | Kind::NotFound) => {
                    tracing::warn!(error = %error.chain(), "a sandbox outlives its deadline");
                }
                _ => {}
            }
        }
    }

    fn sandboxes(&self) -> &Sandboxes {
        &self.monitor.shared.sandboxes
    }

    fn begin_outage(&self) {
        *lock(&self.monitor.shared.outage) = Some(Outage {
            from_ms: now_unix_ms(),
            to_ms: u64::MAX / 2,
        });
    }

    fn end_outage(&self) {
        if let Some(outage) = &mut *lock(&self.monitor.shared.outage) {
            outage.to_ms = outage.to_ms.min(now_unix_ms());
        }
    }

    fn say(&self, link: Link) {
        self.publish.send_replace(link);
        self.context.fingerprint_changed.notify_one();
    }
}

fn lock(outage: &Mutex<Option<Outage>>) -> std::sync::MutexGuard<'_, Option<Outage>> {
    outage.lock().unwrap_or_else(PoisonError::into_inner)
}
