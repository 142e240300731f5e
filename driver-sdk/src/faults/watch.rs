//! The events of a watch, as the script has them: late, lost, doubled, out of order, without end.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tonic::Status;

use super::live::Current;
use super::platform::Shared;
use super::script::EventKind;
use super::variant::Variant;
use super::variants;
use crate::proto::watch_sandboxes_response::Event;
use crate::proto::{Sandbox, SandboxState, WatchSandboxesResponse};
use crate::server::ResponseStream;

type Message = WatchSandboxesResponse;

/// How many messages a watcher of an UnreadHoldsUp driver may leave unread.
const UNREAD_MAX: usize = 4;

/// What a watcher is told. `goes_on`: from a cursor, so that there is no snapshot.
pub(super) fn told(
    live: Shared,
    goes_on: bool,
    truth: ResponseStream<Message>,
) -> ResponseStream<Message> {
    let told = falsify(live.clone(), goes_on, truth);
    match live.breaks(Variant::UnreadHoldsUp) {
        true => one_at_a_time(live, told),
        false => told,
    }
}

/// Nobody else is told anything until this watcher has room for its next message.
fn one_at_a_time(live: Shared, mut told: ResponseStream<Message>) -> ResponseStream<Message> {
    let (sender, mut receiver) = mpsc::channel(UNREAD_MAX);
    let tasks = live.server().context().tasks.clone();
    tasks.spawn(async move {
        loop {
            let next = tokio::select! {
                next = told.next() => next,
                () = sender.closed() => None,
            };
            let Some(message) = next else { return };
            let _turn = live.telling().await;
            // Who has gone away holds up nobody any more.
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    Box::pin(futures_util::stream::poll_fn(move |cx| {
        receiver.poll_recv(cx)
    }))
}

/// `truth`, falsified while the script says so.
fn falsify(
    live: Shared,
    goes_on: bool,
    mut truth: ResponseStream<Message>,
) -> ResponseStream<Message> {
    Box::pin(async_stream::stream! {
        let mut changes = live.changes();
        let mut teller = Teller::default();
        loop {
            let current = changes.borrow_and_update().clone();
            let watch = &current.script.watch;
            if watch.end && goes_on {
                return;
            }
            if watch.flood && let Some(again) = teller.again() {
                yield Ok(again);
                // Everybody else has a turn in between.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                next = truth.next(), if !watch.freeze => match next {
                    Some(Ok(next)) => {
                        let is_synced = kind(&next) == Some(EventKind::Synced);
                        for message in teller.tell(&live, &current, next) {
                            yield Ok(message);
                        }
                        if watch.end && is_synced {
                            return;
                        }
                    }
                    Some(Err(status)) => {
                        yield Err::<Message, Status>(status);
                        return;
                    }
                    None => return,
                },
                changed = changes.changed() => if changed.is_err() {
                    return;
                }
            }
        }
    })
}

/// What one stream remembers.
#[derive(Debug, Default)]
struct Teller {
    /// Messages that are told after the next one about the same sandbox.
    held: HashMap<String, Message>,
    /// What was told first of each sandbox.
    first: HashMap<String, Message>,
    last: Option<Message>,
}

impl Teller {
    /// What is told instead of `message`, in this order.
    fn tell(&mut self, live: &Shared, current: &Current, mut message: Message) -> Vec<Message> {
        let faults = &current.script.watch;
        let breaks = |variant| current.script.variant == Some(variant);
        let dropped = kind(&message).is_some_and(|kind| faults.drop.contains(&kind))
            || breaks(Variant::LostWatchEvent) && is_changed_to(&message, SandboxState::Stopped)
            || breaks(Variant::NeverSynced) && kind(&message) == Some(EventKind::Synced);
        if dropped {
            return Vec::new();
        }
        if let Some(sandbox) = sandbox_mut(&mut message) {
            variants::show(live, sandbox);
        }
        say_incarnation(live, &mut message);
        let id = about(&message);
        let reorders = faults.reorder || breaks(Variant::WrongOrder);
        if reorders && is_changed_to(&message, SandboxState::Creating) {
            self.held.insert(id, message);
            return Vec::new();
        }
        let mut told = vec![message.clone()];
        if faults.duplicate {
            told.push(message.clone());
        }
        told.extend(self.held.remove(&id));
        if faults.stale && kind(&message) == Some(EventKind::Changed) {
            told.extend(self.first.get(&id).cloned());
        }
        if sandbox_mut(&mut message.clone()).is_some() {
            self.first.entry(id).or_insert_with(|| message.clone());
        }
        self.last = Some(message);
        told
    }

    /// The last message once more, as if something had changed.
    fn again(&mut self) -> Option<Message> {
        let last = self.last.as_mut()?;
        if let Some(sandbox) = sandbox_mut(last) {
            sandbox.revision += 1;
        }
        Some(last.clone())
    }
}

fn kind(message: &Message) -> Option<EventKind> {
    Some(match message.event.as_ref()? {
        Event::Snapshot(_) => EventKind::Snapshot,
        Event::Changed(_) => EventKind::Changed,
        Event::Deleted(_) => EventKind::Deleted,
        Event::Bookmark(bookmark) if bookmark.synced => EventKind::Synced,
        Event::Bookmark(_) => EventKind::Bookmark,
    })
}

fn is_changed_to(message: &Message, state: SandboxState) -> bool {
    matches!(&message.event, Some(Event::Changed(sandbox)) if sandbox.state() == state)
}

fn sandbox_mut(message: &mut Message) -> Option<&mut Sandbox> {
    match &mut message.event {
        Some(Event::Snapshot(sandbox) | Event::Changed(sandbox)) => Some(sandbox),
        _ => None,
    }
}

/// The sandbox that it is about; empty for a bookmark.
fn about(message: &Message) -> String {
    match &message.event {
        Some(Event::Snapshot(sandbox) | Event::Changed(sandbox)) => sandbox.sandbox_id.clone(),
        Some(Event::Deleted(deleted)) => deleted.sandbox_id.clone(),
        Some(Event::Bookmark(_)) | None => String::new(),
    }
}

fn say_incarnation(live: &Shared, message: &mut Message) {
    let (real, said) = live.incarnation();
    if real == said {
        return;
    }
    message.cursor = message.cursor.replacen(&real, &said, 1);
    if let Some(Event::Bookmark(bookmark)) = &mut message.event {
        bookmark.incarnation = said;
    }
}
