//! What happens to sandboxes, as one driver tells it.
//!
//! ```text
//!  no cursor ─► snapshot … synced ─► changes …   stream cut: on from the cursor
//!      ▲                               │ OUT_OF_RANGE, or cut before synced
//!      └───────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Code;
use tonic::codec::Streaming;
use wire::watch_sandboxes_response::Event;

use super::call::Client;
use super::handshake::describe;
use super::notices::{FAULT_FIX, Subject};
use super::pace::{PER_SECOND, Pace};
use super::shared::Shared;
use super::status::Answer;
use super::trouble::{SILENT_FIX, Trouble};
use super::{DriverEvent, convert};
use crate::transport::Channel;

/// Watches over one connection.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    pub(super) channel: Channel,
    pub(super) incarnation: String,
    pub(super) events: mpsc::Sender<DriverEvent>,
    /// Where to go on; empty: from the beginning.
    pub(super) cursor: String,
    /// The whole snapshot has been passed on.
    pub(super) synced: bool,
}

/// Why a stream ended.
#[derive(Debug)]
enum Cut {
    /// The driver cannot continue from the cursor.
    OutOfRange,
    /// Anything else: one sentence, and what helps.
    Failed(String, &'static str),
    /// It is another driver than the one that shook hands.
    Foreign,
}

/// A stream that lasted so long has nothing wrong with it.
const STEADY_AFTER: Duration = Duration::from_secs(3);
/// Of what a driver knows by heart.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(10);

impl Watch {
    /// Passes everything on until the connection is of no use any more.
    pub(super) async fn run(mut self) -> Trouble {
        let timing = self.shared.timing.clone();
        let mut pause = timing.backoff_min;
        let mut pace = Pace::new();
        loop {
            let mut messages = 0_u64;
            match self.stream(&mut messages, &mut pace).await {
                Cut::Foreign => {
                    return Trouble::failing("the driver restarted behind its connection");
                }
                Cut::OutOfRange => {
                    tracing::info!(driver.name = %self.shared.name, "watching from the beginning");
                    self.restart();
                }
                Cut::Failed(problem, fix) => {
                    tracing::warn!(driver.name = %self.shared.name, problem, "watch ended");
                    self.shared
                        .notice(|notices| notices.fact(Subject::Watch, true, &problem, fix));
                    if !self.synced {
                        self.restart();
                    }
                }
            }
            if messages > 0 {
                pause = timing.backoff_min;
            }
            sleep(pause).await;
            pause = (pause * 2).min(timing.backoff_max);
        }
    }

    fn restart(&mut self) {
        self.cursor.clear();
        self.synced = false;
    }

    /// One stream, to its end.
    async fn stream(&mut self, messages: &mut u64, pace: &mut Pace) -> Cut {
        let silence = self.shared.timing.watch_silence;
        let mut client = Client::new(self.channel.clone());
        let request = wire::WatchSandboxesRequest {
            cursor: self.cursor.clone(),
        };
        let mut stream = match timeout(silence, client.watch_sandboxes(request)).await {
            Err(_) => return silent(silence),
            Ok(Err(status)) => return self.cut(&status),
            Ok(Ok(response)) => response.into_inner(),
        };
        let begun = Instant::now();
        let mut is_steady = false;
        let mut late_at = Some(begun + SNAPSHOT_WITHIN);
        loop {
            // Until it is known to be steady, it is looked at when it ought to be.
            let patience = match is_steady || *messages == 0 {
                true => silence,
                false => STEADY_AFTER.saturating_sub(begun.elapsed()),
            };
            let message = match self.next(&mut stream, patience, &mut late_at).await {
                Err(_) if !is_steady && *messages > 0 => {
                    is_steady = true;
                    self.no_notice(Subject::Watch);
                    continue;
                }
                Err(_) => return silent(silence),
                Ok(Err(status)) => return self.cut(&status),
                Ok(Ok(None)) => {
                    return Cut::Failed("the driver ended WatchSandboxes".to_owned(), FAULT_FIX);
                }
                Ok(Ok(Some(message))) => message,
            };
            *messages += 1;
            if !is_steady && begun.elapsed() >= STEADY_AFTER {
                is_steady = true;
                self.no_notice(Subject::Watch);
            }
            if !message.cursor.is_empty() {
                self.cursor = message.cursor;
            }
            if let Some(event) = message.event
                && let Err(cut) = self.pass_on(event).await
            {
                return cut;
            }
            self.keep_pace(pace).await;
        }
    }

    /// The next message. Tells meanwhile that the snapshot does not end, when it should have.
    async fn next(
        &self,
        stream: &mut Streaming<wire::WatchSandboxesResponse>,
        patience: Duration,
        late_at: &mut Option<Instant>,
    ) -> Result<Result<Option<wire::WatchSandboxesResponse>, tonic::Status>, Elapsed> {
        let late = late_at.filter(|_| !self.synced);
        tokio::select! {
            message = timeout(patience, stream.message()) => return message,
            () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {}
        }
        *late_at = None;
        let detail = format!(
            "WatchSandboxes has not said for {} s that its snapshot is whole: what is missing on its \
             platform is not looked for",
            SNAPSHOT_WITHIN.as_secs()
        );
        self.shared
            .notice(|notices| notices.fact(Subject::Snapshot, false, &detail, FAULT_FIX));
        timeout(patience, stream.message()).await
    }

    /// A driver that says more than can be of use waits: its words cost the others nothing.
    async fn keep_pace(&self, pace: &mut Pace) {
        match pace.take() {
            None if pace.is_calm() => self.no_notice(Subject::Flood),
            None => {}
            Some(wait) => {
                let detail = format!(
                    "it tells more than {PER_SECOND} changes a second, and is heard at that pace"
                );
                if !self.shared.view().notices.has_fact(Subject::Flood) {
                    self.shared
                        .notice(|notices| notices.fact(Subject::Flood, false, &detail, FAULT_FIX));
                }
                sleep(wait).await;
            }
        }
    }

    fn no_notice(&self, subject: Subject) {
        if self.shared.view().notices.has_fact(subject) {
            self.shared.notice(|notices| notices.no_fact(subject));
        }
    }

    fn cut(&self, status: &tonic::Status) -> Cut {
        match status.code() {
            // Without a cursor nothing can be too old: it is the answer that cannot be read.
            Code::OutOfRange if !self.cursor.is_empty() => Cut::OutOfRange,
            _ => Cut::Failed(
                format!("WatchSandboxes failed: {}", describe(&Answer::of(status))),
                FAULT_FIX,
            ),
        }
    }

    async fn pass_on(&mut self, event: Event) -> Result<(), Cut> {
        let driver = self.shared.name.clone();
        let event = match event {
            Event::Snapshot(sandbox) | Event::Changed(sandbox) => {
                convert::observation_from_wire(sandbox).map(|observation| DriverEvent::Observed {
                    driver,
                    observation,
                })
            }
            Event::Deleted(deleted) => {
                convert::sandbox_id(&deleted.sandbox_id).map(|sandbox_id| DriverEvent::Deleted {
                    driver,
                    sandbox_id,
                    revision: deleted.revision,
                })
            }
            Event::Bookmark(bookmark) => {
                if !bookmark.incarnation.is_empty() && bookmark.incarnation != self.incarnation {
                    return Err(Cut::Foreign);
                }
                if !bookmark.synced || self.synced {
                    return Ok(());
                }
                self.synced = true;
                self.no_notice(Subject::Snapshot);
                let incarnation = self.incarnation.clone();
                Ok(DriverEvent::Synced {
                    driver,
                    incarnation,
                })
            }
        };
        match event {
            // Full: this driver's watch waits. A receiver that is gone is a gateway that ends.
            Ok(event) => drop(self.events.send(event).await),
            Err(error) => {
                tracing::warn!(driver.name = %self.shared.name, %error, "event ignored");
            }
        }
        Ok(())
    }
}

fn silent(silence: Duration) -> Cut {
    Cut::Failed(
        format!("the driver says nothing on WatchSandboxes for {silence:?}"),
        SILENT_FIX,
    )
}
