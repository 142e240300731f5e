//! One sandbox: what is remembered of it, what was last seen, who may work on it.
//!
//! A look and its report are one step under a lock, so that what is reported is in the order in
//! which it was seen.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_driver_sdk::Observations;
use cofferdam_driver_sdk::proto::{
    Condition, ConditionStatus, ConditionType, Sandbox, Termination,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::describe::{Facts, Outage, describe};
use super::heard::Heard;
use super::oom;
use crate::client::wire::ContainerJson;
use crate::client::{Engine, EngineError, Kind};
use crate::image::Progress;
use crate::labels::Record;
use crate::naming::Name;

/// How long a container that was found half-made may be on its way: its driver was killed, and the
/// engine goes on with what it was asked.
const HALF_MADE_PATIENCE: Duration = Duration::from_secs(30);

/// A sandbox of this driver.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// Held by whoever makes, starts, stops or removes it. It holds work that outlives its call.
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// Ends the making of it.
    pub(crate) cancel: CancellationToken,
    /// What carries its stream, and where to.
    relay: Mutex<Option<(PathBuf, CancellationToken)>>,
    /// The end of what the supervisor said, where nobody else keeps it.
    heard: Heard,
    looking: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    name: Name,
    container_id: Option<String>,
    being_made: bool,
    half_made_until: Option<Instant>,
    failed: Option<Termination>,
    progress: Option<Condition>,
    disruption: Option<String>,
    /// As the engine told; the kernel's own counter goes before.
    oom_events: u64,
    oom_kills: Option<u64>,
    /// In earlier boots.
    oom_kills_before: u64,
    is_gone: bool,
    is_running: bool,
    /// That have begun.
    boots: u64,
}

impl Tracked {
    /// One that is being made; it has no container yet.
    pub(crate) fn new(record: Record) -> Self {
        let name = Name::new(&record.gateway_id, &record.sandbox_id);
        Self {
            operation: tokio::sync::Mutex::default(),
            cancel: CancellationToken::new(),
            relay: Mutex::default(),
            heard: Heard::default(),
            looking: tokio::sync::Mutex::default(),
            inner: Mutex::new(Inner {
                record,
                name,
                container_id: None,
                being_made: true,
                half_made_until: None,
                failed: None,
                progress: None,
                disruption: None,
                oom_events: 0,
                oom_kills: None,
                oom_kills_before: 0,
                is_gone: false,
                is_running: false,
                boots: 1,
            }),
        }
    }

    /// One that was found on the engine.
    pub(crate) fn found(record: Record, container_id: &str) -> Self {
        let tracked = Self::new(record);
        {
            let mut inner = tracked.lock();
            inner.container_id = Some(container_id.to_owned());
            inner.being_made = false;
            inner.half_made_until = Some(Instant::now() + HALF_MADE_PATIENCE);
        }
        tracked
    }

    pub(crate) fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// 0: never.
    pub(crate) fn expire_time_unix_ms(&self) -> u64 {
        self.lock().record.expire_time_unix_ms
    }

    pub(crate) fn name(&self) -> Name {
        self.lock().name.clone()
    }

    pub(crate) fn container_id(&self) -> Option<String> {
        self.lock().container_id.clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.lock().is_running
    }

    pub(crate) fn is_being_made(&self) -> bool {
        let inner = self.lock();
        inner.being_made
            || inner
                .half_made_until
                .is_some_and(|until| Instant::now() < until)
    }

    pub(crate) fn set_record(&self, record: Record) {
        self.lock().record = record;
    }

    pub(crate) fn set_container(&self, container_id: Option<String>) {
        self.lock().container_id = container_id;
    }

    pub(crate) fn set_name(&self, name: Name) {
        self.lock().name = name;
    }

    /// It is made, or nobody makes it any more.
    pub(crate) fn is_made(&self) {
        let mut inner = self.lock();
        inner.being_made = false;
        inner.progress = None;
    }

    pub(crate) fn fail(&self, why: Termination) {
        let mut inner = self.lock();
        inner.being_made = false;
        inner.progress = None;
        inner.failed = Some(why);
    }

    pub(crate) fn set_progress(&self, progress: &Progress) {
        self.lock().progress = Some(Condition {
            r#type: ConditionType::ImageReady.into(),
            status: ConditionStatus::InProgress.into(),
            message: progress.sentence(),
            change_time_unix_ms: now_unix_ms(),
            progress_done_bytes: progress.done_bytes(),
            progress_total_bytes: progress.total_bytes(),
        });
    }

    pub(crate) fn set_disruption(&self, message: Option<String>) {
        self.lock().disruption = message;
    }

    pub(crate) fn count_oom(&self) {
        self.lock().oom_events += 1;
    }

    /// It has been removed: nothing is reported any more. Once only: its id may be another's then.
    pub(crate) fn is_gone(&self, log: &Observations) {
        if let Some(record) = self.end() {
            log.remove(&record.gateway_id, &record.sandbox_id);
        }
    }

    /// Another one takes its place, without anybody noticing.
    pub(crate) fn give_way(&self) {
        self.end();
    }

    /// None: it has ended already.
    fn end(&self) -> Option<Record> {
        let mut inner = self.lock();
        if inner.is_gone {
            return None;
        }
        inner.is_gone = true;
        inner.is_running = false;
        let record = inner.record.clone();
        drop(inner);
        self.cancel.cancel();
        self.stop_relay();
        Some(record)
    }

    pub(crate) fn stop_relay(&self) {
        if let Some((_, relay)) = self.relay().take() {
            relay.cancel();
        }
    }

    /// A new relay takes the place of an old one.
    pub(crate) fn set_relay(&self, callback: &Path, cancel: CancellationToken) {
        let old = self.relay().replace((callback.to_owned(), cancel));
        if let Some((_, old)) = old {
            old.cancel();
        }
    }

    pub(crate) fn is_relayed_to(&self, callback: &Path) -> bool {
        self.relay().as_ref().is_some_and(|(to, _)| to == callback)
    }

    /// This relay has ended; another one that took its place has not.
    pub(crate) fn forget_relay(&self, cancel: &CancellationToken) {
        // Cancelled: whoever did it has taken it out, or put another in.
        if !cancel.is_cancelled() {
            self.relay().take();
        }
    }

    fn relay(&self) -> MutexGuard<'_, Option<(PathBuf, CancellationToken)>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what the supervisor said on its stderr.
    pub(crate) fn hear(&self, piece: &[u8]) {
        self.heard.add(piece);
    }

    /// The last of what was heard; 0: all of it.
    pub(crate) fn heard(&self, tail: usize) -> Bytes {
        self.heard.last(tail)
    }

    /// As [`heard`](Self::heard), and what is heard from now on until it is deleted.
    pub(crate) fn follow_heard(
        &self,
        tail: usize,
    ) -> impl futures_util::Stream<Item = Bytes> + Send + use<> {
        self.heard.follow(tail, self.cancel.clone())
    }

    /// Looks at the engine and reports what was seen. `None` once it is gone; the engine's word
    /// that there is no such container makes it so.
    pub(crate) async fn look(
        &self,
        engine: &Engine,
        log: &Observations,
        outage: Option<Outage>,
    ) -> Result<Option<Sandbox>, EngineError> {
        // Cancelled here, nothing was reported.
        let _looking = self.looking.lock().await;
        let Some(id) = self.container_id() else {
            return Ok(self.report(log, None, outage));
        };
        match engine.inspect_container(&id).await {
            Ok(container) => Ok(self.report(log, Some(&container), outage)),
            Err(error) if error.kind == Kind::NotFound => {
                // Unless somebody makes it anew just now.
                if self.container_id().as_deref() == Some(&id) && !self.lock().being_made {
                    self.is_gone(log);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reports what is known without asking the engine.
    pub(crate) fn report(
        &self,
        log: &Observations,
        container: Option<&ContainerJson>,
        outage: Option<Outage>,
    ) -> Option<Sandbox> {
        let mut inner = self.lock();
        if inner.is_gone {
            return None;
        }
        if let Some(container) = container {
            inner.observe(container);
        }
        let facts = Facts {
            container,
            being_made: inner.being_made
                || inner
                    .half_made_until
                    .is_some_and(|until| Instant::now() < until),
            failed: inner.failed.as_ref(),
            progress: inner.progress.as_ref(),
            disruption: inner.disruption.as_deref(),
            outage,
            oom_kills: inner.oom_kills,
            now_unix_ms: now_unix_ms(),
        };
        let sandbox = describe(&inner.record, &inner.name, &facts);
        let newest = log.record(&inner.record.gateway_id, sandbox.clone());
        Some(newest.unwrap_or(sandbox))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn observe(&mut self, container: &ContainerJson) {
        let (gateway_id, sandbox_id) = (&self.record.gateway_id, &self.record.sandbox_id);
        let name = Name::read(gateway_id, sandbox_id, &container.name);
        let is_running = container.is_running();
        let boots = name.boots_begun(is_running);
        if boots != self.boots {
            // A new boot counts from nothing.
            self.oom_kills_before = self.oom_kills.unwrap_or(0);
        }
        self.boots = boots;
        self.name = name;
        self.is_running = is_running;
        if self.is_running || container.state.status == "exited" {
            self.half_made_until = None;
        }
        let told = self.oom_events.max(u64::from(container.state.oom_killed));
        let counted = oom::kernel_count(container.state.pid, &container.id);
        let counted = counted.map_or(0, |counted| counted + self.oom_kills_before);
        // The counter is gone with the container's last process; the last one seen stays.
        self.oom_kills = Some(counted.max(told).max(self.oom_kills.unwrap_or(0)));
    }
}

/// Now, in Unix milliseconds.
pub(crate) fn now_unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
