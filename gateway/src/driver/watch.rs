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
use tokio::time::{sleep, timeout};
use tonic::Code;
use wire::watch_sandboxes_response::Event;

use super::call::Client;
use super::handshake::describe;
use super::shared::Shared;
use super::status::Answer;
use super::trouble::Trouble;
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
    /// Anything else; one sentence.
    Failed(String),
    /// It is another driver than the one that shook hands.
    Foreign,
}

impl Watch {
    /// Passes everything on until the connection is of no use any more.
    pub(super) async fn run(mut self) -> Trouble {
        let timing = self.shared.timing.clone();
        let mut pause = timing.backoff_min;
        loop {
            let mut messages = 0_u64;
            match self.stream(&mut messages).await {
                Cut::Foreign => {
                    return Trouble::failing("the driver restarted behind its connection");
                }
                Cut::OutOfRange => {
                    tracing::info!(driver.name = %self.shared.name, "watching from the beginning");
                    self.restart();
                }
                Cut::Failed(problem) => {
                    tracing::warn!(driver.name = %self.shared.name, problem, "watch ended");
                    self.shared.update(|view| view.error = problem);
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
    async fn stream(&mut self, messages: &mut u64) -> Cut {
        let silence = self.shared.timing.watch_silence;
        let mut client = Client::new(self.channel.clone());
        let request = wire::WatchSandboxesRequest {
            cursor: self.cursor.clone(),
        };
        let mut stream = match timeout(silence, client.watch_sandboxes(request)).await {
            Err(_) => return silent(silence),
            Ok(Err(status)) => return cut(&status),
            Ok(Ok(response)) => response.into_inner(),
        };
        loop {
            let message = match timeout(silence, stream.message()).await {
                Err(_) => return silent(silence),
                Ok(Err(status)) => return cut(&status),
                Ok(Ok(None)) => return Cut::Failed("the driver ended WatchSandboxes".to_owned()),
                Ok(Ok(Some(message))) => message,
            };
            *messages += 1;
            if !message.cursor.is_empty() {
                self.cursor = message.cursor;
            }
            if let Some(event) = message.event
                && let Err(cut) = self.pass_on(event).await
            {
                return cut;
            }
            if *messages == 1 {
                self.shared.update(|view| view.error.clear());
            }
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
            Event::Deleted(deleted) => convert::sandbox_id(&deleted.sandbox_id)
                .map(|sandbox_id| DriverEvent::Deleted { driver, sandbox_id }),
            Event::Bookmark(bookmark) => {
                if !bookmark.incarnation.is_empty() && bookmark.incarnation != self.incarnation {
                    return Err(Cut::Foreign);
                }
                if !bookmark.synced || self.synced {
                    return Ok(());
                }
                self.synced = true;
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
    Cut::Failed(format!(
        "the driver says nothing on WatchSandboxes for {silence:?}"
    ))
}

fn cut(status: &tonic::Status) -> Cut {
    match status.code() {
        Code::OutOfRange => Cut::OutOfRange,
        _ => Cut::Failed(format!(
            "WatchSandboxes failed: {}",
            describe(&Answer::of(status))
        )),
    }
}
