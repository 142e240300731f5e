//! What a watcher is told, in which order, and when it ends.

use std::pin::Pin;

use futures_util::StreamExt as _;
use tonic::Code;

use super::*;
use crate::context::Incarnation;
use crate::proto::{Sandbox, SandboxState};

type Watcher = Pin<Box<dyn Stream<Item = Result<WatchSandboxesResponse, DriverError>> + Send>>;

fn log() -> Observations {
    Observations::with_capacity(Incarnation::random(), 4)
}

fn sandbox(id: &str, state: SandboxState) -> Sandbox {
    Sandbox {
        sandbox_id: id.to_owned(),
        state: state.into(),
        boots: 1,
        ..Sandbox::default()
    }
}

fn watcher(log: &Observations, cursor: &str) -> Watcher {
    Box::pin(watch(log.clone(), "gw".to_owned(), cursor.to_owned()))
}

/// A word for each event that is there without waiting.
async fn told(watcher: &mut Watcher, count: usize) -> Vec<String> {
    let mut words = Vec::new();
    for _ in 0..count {
        words.push(
            match watcher.next().await.unwrap().unwrap().event.unwrap() {
                Event::Snapshot(sandbox) => format!("snapshot {}", sandbox.sandbox_id),
                Event::Changed(sandbox) => format!(
                    "changed {} {} r{}",
                    sandbox.sandbox_id,
                    sandbox.state().as_str_name(),
                    sandbox.revision
                ),
                Event::Deleted(deleted) => {
                    format!("deleted {} r{}", deleted.sandbox_id, deleted.revision)
                }
                Event::Bookmark(bookmark) => format!("bookmark synced={}", bookmark.synced),
            },
        );
    }
    words
}

async fn ends_with(watcher: &mut Watcher) -> Code {
    loop {
        match watcher.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return error.code(),
            None => panic!("the stream ended without an error"),
        }
    }
}

#[tokio::test]
async fn snapshot_then_bookmark_then_changes_in_order() {
    let log = log();
    log.record("gw", sandbox("b", SandboxState::Running));
    log.record("gw", sandbox("a", SandboxState::Creating));
    log.record("other", sandbox("c", SandboxState::Running));
    let mut watcher = watcher(&log, "");
    assert_eq!(
        told(&mut watcher, 3).await,
        ["snapshot a", "snapshot b", "bookmark synced=true"]
    );
    log.record("gw", sandbox("a", SandboxState::Running));
    log.record("other", sandbox("c", SandboxState::Stopped));
    log.remove("gw", "b");
    assert_eq!(
        told(&mut watcher, 2).await,
        ["changed a RUNNING r2", "deleted b r2"]
    );
}

#[tokio::test]
async fn an_older_state_is_not_reported_after_a_later_one() {
    let log = log();
    log.record("gw", sandbox("a", SandboxState::Stopped));
    let newest = log
        .record("gw", sandbox("a", SandboxState::Running))
        .unwrap();
    assert_eq!(newest.state(), SandboxState::Stopped);
    assert_eq!(newest.revision, 1);
    log.remove("gw", "a");
    assert!(
        log.record("gw", sandbox("a", SandboxState::Stopped))
            .is_none()
    );
    assert!(log.current("gw", "a").is_none());
}

#[tokio::test]
async fn the_same_state_again_is_no_change() {
    let log = log();
    log.record("gw", sandbox("a", SandboxState::Running));
    log.record("gw", sandbox("a", SandboxState::Running));
    assert_eq!(log.lock().head(), 1);
}

#[tokio::test]
async fn revisions_grow_also_when_an_id_is_used_again() {
    let log = log();
    let mut watcher = watcher(&log, "");
    told(&mut watcher, 1).await;
    log.record("gw", sandbox("a", SandboxState::Running));
    log.remove("gw", "a");
    assert_eq!(log.record("gw", sandbox("a", SandboxState::Stopped)), None);
    log.expect("gw", "a");
    let again = log.record("gw", sandbox("a", SandboxState::Creating));
    assert_eq!(again.unwrap().revision, 3);
    log.remove("gw", "a");
    assert_eq!(log.record("gw", sandbox("a", SandboxState::Running)), None);
}

#[tokio::test]
async fn a_cursor_continues_where_it_was() {
    let log = log();
    let mut first = watcher(&log, "");
    let cursor = first.next().await.unwrap().unwrap().cursor;
    drop(first);
    log.record("gw", sandbox("a", SandboxState::Creating));
    log.record("gw", sandbox("a", SandboxState::Running));
    let mut again = watcher(&log, &cursor);
    assert_eq!(
        told(&mut again, 2).await,
        ["changed a CREATING r1", "changed a RUNNING r2"]
    );
}

#[tokio::test]
async fn a_cursor_that_is_too_old_or_foreign_is_out_of_range() {
    let log = log();
    let mut first = watcher(&log, "");
    let cursor = first.next().await.unwrap().unwrap().cursor;
    for id in ["a", "b", "c", "d", "e"] {
        log.record("gw", sandbox(id, SandboxState::Running));
    }
    assert_eq!(
        ends_with(&mut watcher(&log, &cursor)).await,
        Code::OutOfRange
    );
    for cursor in ["x", "x.1", &format!("{}.99", log.0.incarnation)] {
        assert_eq!(
            ends_with(&mut watcher(&log, cursor)).await,
            Code::OutOfRange
        );
    }
}

#[tokio::test]
async fn a_slow_watcher_ends_and_costs_no_memory() {
    let log = log();
    let mut slow = watcher(&log, "");
    told(&mut slow, 1).await;
    for id in ["a", "b", "c", "d", "e", "f"] {
        log.record("gw", sandbox(id, SandboxState::Running));
    }
    assert_eq!(ends_with(&mut slow).await, Code::OutOfRange);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_while_nothing_happens_here() {
    let log = log();
    let mut watcher = watcher(&log, "");
    told(&mut watcher, 1).await;
    let before = Instant::now();
    assert_eq!(told(&mut watcher, 1).await, ["bookmark synced=false"]);
    assert!(before.elapsed() <= Duration::from_secs(10));
    // Another gateway's changes move the cursor on, so that it does not grow old.
    for id in ["a", "b", "c", "d"] {
        log.record("other", sandbox(id, SandboxState::Running));
    }
    let bookmark = watcher.next().await.unwrap().unwrap();
    assert!(bookmark.cursor.ends_with(".4"), "{}", bookmark.cursor);
}
