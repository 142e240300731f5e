//! WatchSandboxes: nothing that happens is missed, doubled, or told in the wrong order.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::SandboxState;
use cofferdam_proto::compute::v1::watch_sandboxes_response::Event;
use tokio::time::Instant;
use tonic::Code;

use crate::answer::{How, Refused, code_name};
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::driver::Driver;
use crate::needs::Need;
use crate::subject::Subject;
use crate::suite::Suite;
use crate::watcher::{Watcher, describe, is_about};

/// Of the contract, and what a busy machine may add.
const BOOKMARK_WITHIN: Duration = Duration::from_secs(10 + 3);

const ONE_LOG: &str = "keep one ordered log of changes per process, number each, and let every \
                       watch read from it";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.watch.snapshot",
        source: "WatchSandboxes",
        says: "Without a cursor: one `snapshot` for every sandbox, without a cursor of its own, \
               then a bookmark with `synced`.",
        fix: "take the states and the place in the log in one step",
        needs: &[],
        run: run!(snapshot),
    },
    Case {
        id: "core.watch.created-and-deleted",
        source: "WatchSandboxes",
        says: "Then changes: that a sandbox runs, and that it is deleted.",
        fix: ONE_LOG,
        needs: &[],
        run: run!(created_and_deleted),
    },
    Case {
        id: "core.watch.every-change",
        source: "WatchSandboxes",
        says: "Every state that an answer has told is told to watchers: stopped, started again, \
               deleted.",
        fix: ONE_LOG,
        needs: &[Need::StopStart],
        run: run!(every_change),
    },
    Case {
        id: "core.watch.order",
        source: "WatchSandboxes",
        says: "For one sandbox, events come in the order in which things happened; revisions grow; \
               a state is never reported again after a later one; `deleted` is the last.",
        fix: "give every change its number under the lock under which it is made, and drop \
              observations that are older than the last",
        needs: &[],
        run: run!(order),
    },
    Case {
        id: "core.watch.resumed",
        source: "WatchSandboxes",
        says: "With a cursor: exactly the changes since then.",
        fix: "let the cursor be a place in the log",
        needs: &[],
        run: run!(resumed),
    },
    Case {
        id: "core.watch.bad-cursor",
        source: "WatchSandboxes",
        says: "A cursor that is too old, or of another incarnation, is OUT_OF_RANGE.",
        fix: "put the incarnation into the cursor; never guess where to begin",
        needs: &[],
        run: run!(bad_cursor),
    },
    Case {
        id: "core.watch.resync",
        source: "WatchSandboxes",
        says: "After OUT_OF_RANGE: watch again without a cursor, and the snapshot is whole.",
        fix: "serve every watch on its own, whatever became of the last",
        needs: &[],
        run: run!(resync),
    },
    Case {
        id: "core.watch.bookmarks",
        source: "WatchSandboxes",
        says: "A bookmark at least every 10 s, with a cursor and the incarnation.",
        fix: "send a bookmark when nothing else was sent for some seconds",
        needs: &[],
        run: run!(bookmarks),
    },
    Case {
        id: "core.watch.not-deleted",
        source: "SandboxDeleted",
        says: "`deleted` means that the platform says it is gone: not that somebody has not asked \
               for it, or has connected anew.",
        fix: "tell it after DeleteSandbox, or when the platform has answered in full and it is not \
              there",
        needs: &[],
        run: run!(not_deleted),
    },
];

async fn snapshot(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subjects = suite.several(&driver, 2).await?;
    let watcher = Watcher::synced(&suite, &driver).await?;
    let Some((last, before)) = watcher.told.split_last() else {
        fail!("nothing was told");
    };
    for message in before {
        match &message.event {
            Some(Event::Snapshot(_)) => ensure!(
                message.cursor.is_empty(),
                "a snapshot message has the cursor {:?}",
                message.cursor
            ),
            _ => fail!("before the first bookmark came: {}", describe(message)),
        }
    }
    for subject in &subjects {
        let count = before
            .iter()
            .filter(|message| is_about(message, &subject.id))
            .count();
        ensure!(count == 1, "{} has {count} snapshots", subject.id);
    }
    ensure!(!last.cursor.is_empty(), "the synced bookmark has no cursor");
    if let Some(Event::Bookmark(bookmark)) = &last.event {
        ensure!(
            bookmark.incarnation == driver.incarnation(),
            "the bookmark's incarnation is {:?}, and the handshake's {:?}",
            bookmark.incarnation,
            driver.incarnation()
        );
    }
    Ok(())
}

async fn created_and_deleted(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut watcher = Watcher::synced(&suite, &driver).await?;
    let subject = suite.subject()?;
    subject.create(&driver).await?;
    watcher.state(&subject.id, SandboxState::Running).await?;
    driver.delete(&subject.id).await?;
    let cursor = watcher.deleted(&subject.id).await?;
    ensure!(!cursor.is_empty(), "the message has no cursor");
    Ok(())
}

async fn every_change(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut watcher = Watcher::synced(&suite, &driver).await?;
    let mut subject = suite.subject()?;
    subject.create(&driver).await?;
    watcher.state(&subject.id, SandboxState::Running).await?;
    for boot in 2..=3 {
        driver.stop(&subject.id, 1000).await?;
        let (stopped, _) = watcher.state(&subject.id, SandboxState::Stopped).await?;
        ensure!(
            stopped.termination.is_some(),
            "the sandbox was told to be STOPPED without a termination"
        );
        subject.start(&driver).await?;
        let (running, _) = watcher.state(&subject.id, SandboxState::Running).await?;
        ensure!(
            running.boots == boot,
            "after start {boot} it was told to be RUNNING with boots {}",
            running.boots
        );
    }
    driver.delete(&subject.id).await?;
    watcher.deleted(&subject.id).await?;
    Ok(())
}

/// Makes a whole life happen; the watcher sees its end.
async fn live(suite: &Suite, driver: &Driver, watcher: &mut Watcher) -> Result<Subject, Stop> {
    let mut subject = suite.subject()?;
    subject.ready(driver).await?;
    if suite.capabilities().stop_start {
        driver.stop(&subject.id, 1000).await?;
        subject.start(driver).await?;
        subject.running(driver).await?;
    }
    driver.delete(&subject.id).await?;
    watcher.deleted(&subject.id).await?;
    Ok(subject)
}

async fn order(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut watcher = Watcher::synced(&suite, &driver).await?;
    let subject = live(&suite, &driver, &mut watcher).await?;
    // Whatever comes behind its end came too late.
    watcher.fence(&driver).await?;
    let events = watcher.about(&subject.id);
    for pair in events.windows(2) {
        let (before, after) = (place(pair[0]), place(pair[1]));
        ensure!(
            before < after,
            "\"{}\" was told after \"{}\"",
            describe(pair[1]),
            describe(pair[0])
        );
        let (before, after) = (revision(pair[0]), revision(pair[1]));
        ensure!(
            before < after,
            "revision {after} was told after {before}: \"{}\"",
            describe(pair[1])
        );
    }
    Ok(())
}

/// Where in its life a sandbox is, revisions apart: what is later is greater. Progress in one state
/// is told by the revision.
fn place(message: &wire::WatchSandboxesResponse) -> (u8, u64, u8, u64) {
    match &message.event {
        Some(Event::Snapshot(sandbox) | Event::Changed(sandbox)) => {
            let (end, phase) = match sandbox.state() {
                SandboxState::Unspecified => (0, 0),
                SandboxState::Creating => (0, 1),
                SandboxState::Running | SandboxState::Paused => (0, 2),
                SandboxState::Stopped => (0, 3),
                SandboxState::FailedState => (1, 0),
                SandboxState::Deleting => (2, 0),
            };
            let boots = if end == 0 { sandbox.boots } else { 0 };
            (end, boots, phase, sandbox.revision)
        }
        _ => (3, 0, 0, 0),
    }
}

fn revision(message: &wire::WatchSandboxesResponse) -> u64 {
    match &message.event {
        Some(Event::Snapshot(sandbox) | Event::Changed(sandbox)) => sandbox.revision,
        Some(Event::Deleted(deleted)) => deleted.revision,
        Some(Event::Bookmark(_)) | None => 0,
    }
}

async fn resumed(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut whole = Watcher::synced(&suite, &driver).await?;
    let first = live(&suite, &driver, &mut whole).await?;
    // From the middle of what is known, and after everything that is yet to come.
    let from = whole
        .told
        .iter()
        .position(|message| is_about(message, &first.id));
    let from = from.unwrap_or_default();
    let cursor = whole.told[from].cursor.clone();
    let second = live(&suite, &driver, &mut whole).await?;
    let elsewhere = suite.driver().await?;
    let mut again = Watcher::open(&suite, &elsewhere, &cursor).await?;
    again.deleted(&second.id).await?;
    let told = |messages: &[wire::WatchSandboxesResponse]| -> Vec<String> {
        let changes = messages
            .iter()
            .filter(|message| is_about(message, &first.id) || is_about(message, &second.id));
        changes.map(describe).collect()
    };
    let (expected, came) = (told(&whole.told[from + 1..]), told(&again.told));
    ensure!(
        came == expected,
        "after the cursor came {came:?}; the other watcher was told {expected:?}"
    );
    Ok(())
}

pub(super) async fn refused_cursor(suite: &Suite, driver: &Driver, cursor: &str) -> Verdict {
    // The status may come at once, or as the first that the stream says.
    let outcome = match Watcher::open(suite, driver, cursor).await {
        Ok(mut watcher) => watcher.next_within(suite.patience()).await,
        Err(refused) => Err(refused),
    };
    match outcome {
        Err(refused) if refused.code() == Some(Code::OutOfRange) => Ok(()),
        Err(refused) => fail!(
            "with the cursor {cursor:?}: {refused}; {} was expected",
            code_name(Code::OutOfRange)
        ),
        Ok(Some(message)) => fail!("with the cursor {cursor:?} came: {}", describe(&message)),
        Ok(None) => fail!("with the cursor {cursor:?} the stream ended without an error"),
    }
}

async fn bad_cursor(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let watcher = Watcher::synced(&suite, &driver).await?;
    let good = watcher.told.last().map(|last| last.cursor.clone());
    let good = good.unwrap_or_default();
    let foreign = good.replace(driver.incarnation(), "another-incarnation");
    let mut wrong = vec!["conformance".to_owned(), format!("{good}-x")];
    if foreign != good {
        wrong.push(foreign);
    }
    for cursor in wrong {
        refused_cursor(&suite, &driver, &cursor).await?;
    }
    Ok(())
}

async fn resync(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    refused_cursor(&suite, &driver, "conformance").await?;
    let watcher = Watcher::synced(&suite, &driver).await?;
    ensure!(
        watcher
            .told
            .iter()
            .any(|message| is_about(message, &subject.id)),
        "the sandbox is not in the new snapshot"
    );
    Ok(())
}

async fn bookmarks(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut watcher = Watcher::synced(&suite, &driver).await?;
    let end = Instant::now() + BOOKMARK_WITHIN;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match watcher.next_within(left).await {
            Ok(Some(message)) => {
                if let Some(Event::Bookmark(bookmark)) = &message.event {
                    ensure!(!message.cursor.is_empty(), "a bookmark has no cursor");
                    ensure!(!bookmark.synced, "`synced` came twice");
                    ensure!(
                        bookmark.incarnation == driver.incarnation(),
                        "a bookmark's incarnation is {:?}",
                        bookmark.incarnation
                    );
                    return Ok(());
                }
            }
            Ok(None) => fail!("the stream ended by itself"),
            Err(Refused {
                how: How::Silent(_),
                ..
            }) => fail!("no bookmark within 10 s"),
            Err(refused) => return Err(refused.into()),
        }
    }
}

async fn not_deleted(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut watcher = Watcher::synced(&suite, &driver).await?;
    let subjects = suite.several(&driver, 2).await?;
    let others = suite
        .driver_of(&format!("{}-other", suite.gateway_id()))
        .await?;
    others.list_ids().await?;
    let item = wire::recover_sandboxes_request::Item {
        sandbox_id: subjects[0].id.clone(),
        ..Default::default()
    };
    let request = wire::RecoverSandboxesRequest { items: vec![item] };
    driver.recover_with(request).await?;
    suite.driver().await?.list_ids().await?;
    watcher.fence(&driver).await?;
    for subject in &subjects {
        let told = watcher.about(&subject.id);
        let is_deleted = |message: &&wire::WatchSandboxesResponse| {
            matches!(message.event, Some(Event::Deleted(_)))
        };
        ensure!(
            !told.iter().any(is_deleted),
            "{} was told to be deleted, and nobody did",
            subject.id
        );
        subject.running(&driver).await?;
    }
    Ok(())
}
