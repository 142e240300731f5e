//! A gateway's watch: a stream of events, and what one waits for in it.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::watch_sandboxes_response::Event;
use tokio::time::Instant;

use crate::answer::{How, Refused};
use crate::case::Stop;
use crate::driver::{Answers, Driver};
use crate::suite::Suite;

/// One watch. It keeps everything that it was told.
#[derive(Debug)]
pub(crate) struct Watcher {
    suite: Suite,
    stream: Answers<wire::WatchSandboxesResponse>,
    pub(crate) told: Vec<wire::WatchSandboxesResponse>,
}

impl Watcher {
    /// Watches from a cursor on; from a snapshot, if that is empty.
    pub(crate) async fn open(
        suite: &Suite,
        driver: &Driver,
        cursor: &str,
    ) -> Result<Self, Refused> {
        let request = wire::WatchSandboxesRequest {
            cursor: cursor.to_owned(),
        };
        Ok(Self {
            suite: suite.clone(),
            stream: driver.watch_with(request).await?,
            told: Vec::new(),
        })
    }

    /// Watches, and reads the whole snapshot.
    pub(crate) async fn synced(suite: &Suite, driver: &Driver) -> Result<Self, Stop> {
        let mut watcher = Self::open(suite, driver, "").await?;
        watcher
            .until(
                "a bookmark with `synced`",
                |event| matches!(event, Event::Bookmark(bookmark) if bookmark.synced),
            )
            .await?;
        Ok(watcher)
    }

    /// Makes something happen that comes last, and reads until it has come: what was to be told before
    /// it has been told by then. `driver` is the watch's own gateway's.
    pub(crate) async fn fence(&mut self, driver: &Driver) -> Result<(), Stop> {
        let subject = self.suite.subject_of(driver.gateway_id())?;
        subject.ready(driver).await?;
        driver.delete(&subject.id).await?;
        self.deleted(&subject.id).await?;
        Ok(())
    }

    /// What was told of a sandbox.
    pub(crate) fn about(&self, sandbox_id: &str) -> Vec<&wire::WatchSandboxesResponse> {
        let told = self.told.iter();
        told.filter(|message| is_about(message, sandbox_id))
            .collect()
    }

    /// The next message, as it came.
    pub(crate) async fn next_within(
        &mut self,
        patience: Duration,
    ) -> Result<Option<wire::WatchSandboxesResponse>, Refused> {
        let message = self.stream.next_within(patience).await?;
        if let Some(message) = &message {
            if let Some(Event::Snapshot(sandbox) | Event::Changed(sandbox)) = &message.event {
                self.suite.recorder().observation("WatchSandboxes", sandbox);
            }
            self.told.push(message.clone());
        }
        Ok(message)
    }

    /// Reads until such an event comes; it is returned with its cursor.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        is_it: impl Fn(&Event) -> bool,
    ) -> Result<(Event, String), Stop> {
        let patience = self.suite.patience();
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.next_within(left).await {
                Ok(Some(message)) => {
                    if let Some(event) = message.event.filter(&is_it) {
                        return Ok((event, message.cursor));
                    }
                }
                Ok(None) => {
                    return Err(Stop::failed(format!(
                        "WatchSandboxes ended where {what} was expected"
                    )));
                }
                Err(Refused {
                    how: How::Silent(_),
                    ..
                }) => {
                    let seconds = patience.as_secs();
                    return Err(Stop::failed(format!(
                        "WatchSandboxes has not told {what} within {seconds} s"
                    )));
                }
                Err(refused) => return Err(refused.into()),
            }
        }
    }

    /// Reads until this sandbox is told to be in this state.
    pub(crate) async fn state(
        &mut self,
        sandbox_id: &str,
        state: wire::SandboxState,
    ) -> Result<(wire::Sandbox, String), Stop> {
        let what = format!("that the sandbox is {}", state.as_str_name());
        let (event, cursor) = self
            .until(&what, |event| {
                matches!(event, Event::Changed(sandbox)
                    if sandbox.sandbox_id == sandbox_id && sandbox.state() == state)
            })
            .await?;
        match event {
            Event::Changed(sandbox) => Ok((sandbox, cursor)),
            _ => Err(Stop::failed("another event")),
        }
    }

    /// Reads until this sandbox is told to be gone.
    pub(crate) async fn deleted(&mut self, sandbox_id: &str) -> Result<String, Stop> {
        let (_, cursor) = self
            .until("that the sandbox is deleted", |event| {
                matches!(event, Event::Deleted(deleted) if deleted.sandbox_id == sandbox_id)
            })
            .await?;
        Ok(cursor)
    }
}

/// Whether it is about this sandbox.
pub(crate) fn is_about(message: &wire::WatchSandboxesResponse, sandbox_id: &str) -> bool {
    match &message.event {
        Some(Event::Snapshot(sandbox) | Event::Changed(sandbox)) => {
            sandbox.sandbox_id == sandbox_id
        }
        Some(Event::Deleted(deleted)) => deleted.sandbox_id == sandbox_id,
        Some(Event::Bookmark(_)) | None => false,
    }
}

/// What a message is about, in a few words.
pub(crate) fn describe(message: &wire::WatchSandboxesResponse) -> String {
    match &message.event {
        Some(Event::Snapshot(sandbox)) => format!("snapshot of {}", sandbox.sandbox_id),
        Some(Event::Changed(sandbox)) => format!(
            "{} is {} (boot {}, revision {})",
            sandbox.sandbox_id,
            sandbox.state().as_str_name(),
            sandbox.boots,
            sandbox.revision
        ),
        Some(Event::Deleted(deleted)) => {
            format!(
                "{} is deleted (revision {})",
                deleted.sandbox_id, deleted.revision
            )
        }
        Some(Event::Bookmark(bookmark)) if bookmark.synced => "synced".to_owned(),
        Some(Event::Bookmark(_)) => "bookmark".to_owned(),
        None => "an event that revision 1 does not have".to_owned(),
    }
}
