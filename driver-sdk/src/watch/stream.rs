//! One watcher: a place in the log, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::time::{Instant, timeout_at};

use super::Observations;
use super::log::{Change, OutOfRange, What};
use crate::error::DriverError;
use crate::proto::watch_sandboxes_response::Event;
use crate::proto::{Bookmark, WatchSandboxesResponse};

/// The contract asks for a bookmark at least every 10 s.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);

/// How many changes are copied out of the log at a time.
const BATCH: usize = 64;

/// What happens to the sandboxes of `gateway_id`, from `cursor` on, or with a snapshot first if
/// that is empty. Ends only with an error.
pub(crate) fn watch(
    observations: Observations,
    gateway_id: String,
    cursor: String,
) -> impl Stream<Item = Result<WatchSandboxesResponse, DriverError>> + Send {
    async_stream::try_stream! {
        let mut head = observations.0.head.subscribe();
        let mut position = if cursor.is_empty() {
            let (states, position) = observations.lock().snapshot(&gateway_id);
            for state in states {
                // A snapshot can only be continued when it is whole, hence no cursor.
                yield response(Event::Snapshot(unshared(&state)), String::new());
            }
            yield bookmark(&observations, position, true);
            position
        } else {
            observations
                .position(&cursor)
                .ok_or_else(|| out_of_range("the cursor is not of this incarnation"))?
        };
        let mut bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
        loop {
            let changes = observations.lock().after(position, BATCH);
            let changes = changes.map_err(|OutOfRange| out_of_range("the cursor is too old"))?;
            if changes.is_empty() {
                // Cancelled here, nothing is lost: the place in the log is the caller's cursor.
                let news = timeout_at(bookmark_at, head.wait_for(|head| *head > position)).await;
                if news.is_ok() {
                    continue;
                }
            }
            for (number, change) in changes {
                position = number;
                if let Some(event) = event(change, &gateway_id) {
                    yield response(event, observations.cursor(position));
                }
            }
            if Instant::now() >= bookmark_at {
                yield bookmark(&observations, position, false);
                bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
            }
        }
    }
}

/// What a change is to the watcher of `gateway_id`; nothing, if it is another gateway's.
fn event(change: Change, gateway_id: &str) -> Option<Event> {
    if &*change.gateway_id != gateway_id {
        return None;
    }
    Some(match change.what {
        What::Changed(state) => Event::Changed(unshared(&state)),
        What::Deleted(deleted) => Event::Deleted(deleted),
    })
}

fn bookmark(observations: &Observations, position: u64, synced: bool) -> WatchSandboxesResponse {
    let bookmark = Bookmark {
        synced,
        incarnation: observations.0.incarnation.to_string(),
    };
    response(Event::Bookmark(bookmark), observations.cursor(position))
}

fn response(event: Event, cursor: String) -> WatchSandboxesResponse {
    WatchSandboxesResponse {
        event: Some(event),
        cursor,
    }
}

fn unshared<T: Clone>(shared: &Arc<T>) -> T {
    T::clone(shared)
}

fn out_of_range(reason: &str) -> DriverError {
    DriverError::out_of_range(format!("{reason}; watch again without a cursor"))
}

#[cfg(test)]
mod tests;
