//! What streams meet on their way: cuts, delays, readers who do not read, gateways that go.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::watch_sandboxes_response::Event;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::answer::{How, Refused};
use crate::callback::Shape;
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::driver::Driver;
use crate::needs::Need;
use crate::process::say;
use crate::suite::Suite;
use crate::watcher::{Watcher, describe};

const SUPERVISED: &[Need] = &[Need::Supervised];

/// How long the gateway is away: longer than a supervisor waits before it calls again.
const AWAY: Duration = Duration::from_secs(3);

/// As a slow relay would: a few bytes at a time.
const SLOW: Shape = Shape {
    piece_bytes: 13,
    pause: Duration::from_millis(1),
};

const CONNECTIONS: usize = 24;

/// How many sandboxes come and go while somebody does not read, and for how long. Each is told of in
/// three messages at least.
const ROUNDS_MIN: usize = 12;
const ROUNDS_MAX: usize = 100;
const CHURN_TIME: Duration = Duration::from_secs(3);

pub(super) const CASES: &[Case] = &[
    Case {
        id: "faults.stream.cut",
        source: "CreateSandboxRequest.callback_directory",
        says: "A byte stream that was cut is made anew, as often as it is cut; the sandbox goes on.",
        fix: "leave the callback directory reachable for good; a relay begins anew when the \
              supervisor calls again",
        needs: SUPERVISED,
        run: run!(cut),
    },
    Case {
        id: "faults.stream.gateway-away",
        source: "CreateSandboxRequest.callback_directory",
        says: "The directory is made reachable, not the file: a restarted gateway binds a new \
               socket.",
        fix: "mount or open the directory; look `gateway.sock` up anew for every connection",
        needs: SUPERVISED,
        run: run!(gateway_away),
    },
    Case {
        id: "faults.stream.slow",
        source: "CreateSandboxRequest.callback_directory",
        says: "It is a byte stream: however it is cut into pieces and delayed, what arrives is what \
               was sent.",
        fix: "carry bytes as they come; rely on no boundaries, and drop nothing when one side waits",
        needs: SUPERVISED,
        run: run!(slow),
    },
    Case {
        id: "faults.watch.unread",
        source: "WatchSandboxes",
        says: "A watcher that does not read delays nobody else.",
        fix: "let every watch read the log at its own pace, and bound what is kept for it",
        needs: &[],
        run: run!(unread),
    },
    Case {
        id: "faults.watch.old-cursor",
        source: "WatchSandboxes",
        says: "With a cursor: the changes since then, all of them, or OUT_OF_RANGE when it is too \
               old.",
        fix: "number the changes; when the first one that is asked for is not kept any more, say \
              OUT_OF_RANGE",
        needs: &[],
        run: run!(aged_cursor),
    },
    Case {
        id: "faults.connections.gone",
        source: "rule 2",
        says: "What connections leave behind that end in the midst of their streams is nothing.",
        fix: "end the work of a stream when its connection ends",
        needs: &[],
        run: run!(connections_gone),
    },
];

async fn cut(suite: Suite) -> Verdict {
    let (driver, subject, mut session) = suite.with_session().await?;
    let before = driver.get(&subject.id).await?;
    say(&suite, &session, "echo kept > file").await?;
    for _ in 0..3 {
        session.cut();
        session = subject.same_boot(&session).await?;
    }
    let kept = say(&suite, &session, "cat file").await?;
    ensure!(kept == "kept", "the file holds {kept:?}");
    subject
        .must_be_untouched(&driver, &before, Some(&session))
        .await
}

async fn gateway_away(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let before = driver.get(&subject.id).await?;
    let callback = subject.callback()?;
    callback.close();
    session.cut();
    sleep(AWAY).await;
    callback.listen()?;
    let session = subject.same_boot(&session).await?;
    subject
        .must_be_untouched(&driver, &before, Some(&session))
        .await
}

async fn slow(suite: Suite) -> Verdict {
    let (_driver, subject, session) = suite.with_session().await?;
    subject.callback()?.set_shape(Some(SLOW));
    session.cut();
    let session = subject.same_boot(&session).await?;
    let script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done";
    let expected: Vec<String> = (0..400).map(|number| format!("line {number}")).collect();
    let said = say(&suite, &session, script).await?;
    ensure!(
        said == expected.join("\n"),
        "of 400 lines came {} bytes that are others",
        said.len()
    );
    Ok(())
}

/// Makes and deletes one sandbox after the other, for some time; a watcher sees all of it.
async fn churn(suite: &Suite, driver: &Driver, watcher: &mut Watcher) -> Verdict {
    let begun = Instant::now();
    let rounds = 1..=ROUNDS_MAX;
    for _ in rounds.take_while(|round| *round <= ROUNDS_MIN || begun.elapsed() < CHURN_TIME) {
        let subject = suite.subject()?;
        subject.create(driver).await?;
        watcher
            .state(&subject.id, wire::SandboxState::Running)
            .await?;
        driver.delete(&subject.id).await?;
        watcher.deleted(&subject.id).await?;
    }
    Ok(())
}

async fn unread(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut narrow = driver.narrow().await?;
    let unread = narrow
        .watch_sandboxes(wire::WatchSandboxesRequest::default())
        .await
        .map_err(|status| Stop::failed(format!("a second WatchSandboxes: {status}")))?;
    let mut reader = Watcher::synced(&suite, &driver).await?;
    churn(&suite, &driver, &mut reader).await?;
    drop(unread);
    Ok(())
}

async fn aged_cursor(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut whole = Watcher::synced(&suite, &driver).await?;
    let cursor = whole.told.last().map(|last| last.cursor.clone());
    let cursor = cursor.unwrap_or_default();
    let from = whole.told.len();
    churn(&suite, &driver, &mut whole).await?;
    let elsewhere = suite.driver().await?;
    let told = |messages: &[wire::WatchSandboxesResponse]| -> Vec<String> {
        let changes = messages.iter().filter(|message| !is_bookmark(message));
        changes.map(describe).collect()
    };
    let expected = told(&whole.told[from..]);
    let resumed = resume(&suite, &elsewhere, &cursor, expected.len());
    let came = match resumed.await {
        Ok(again) => told(&again.told),
        // That is how a gateway learns that it has to begin anew.
        Err(refused) if refused.code() == Some(Code::OutOfRange) => return Ok(()),
        Err(refused) => return Err(refused.into()),
    };
    let is_other = |(came, expected): &(&String, &String)| came != expected;
    let pairs = came.iter().zip(&expected);
    if let Some((came, expected)) = pairs.into_iter().find(is_other) {
        fail!("after an old cursor came {came:?} where another watcher was told {expected:?}");
    }
    ensure!(
        came.len() == expected.len(),
        "after an old cursor came {} changes, and there were {}",
        came.len(),
        expected.len()
    );
    Ok(())
}

/// Watches from a cursor on, until so many changes have come, or nothing more.
async fn resume(
    suite: &Suite,
    driver: &Driver,
    cursor: &str,
    changes: usize,
) -> Result<Watcher, Refused> {
    let mut watcher = Watcher::open(suite, driver, cursor).await?;
    let mut count = 0;
    while count < changes {
        match watcher.next_within(suite.patience() / 3).await {
            Ok(Some(message)) => count += usize::from(!is_bookmark(&message)),
            Ok(None)
            | Err(Refused {
                how: How::Silent(_),
                ..
            }) => break,
            Err(refused) => return Err(refused),
        }
    }
    Ok(watcher)
}

fn is_bookmark(message: &wire::WatchSandboxesResponse) -> bool {
    matches!(message.event, Some(Event::Bookmark(_)) | None)
}

async fn connections_gone(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    for _ in 0..CONNECTIONS {
        let other = suite.driver().await?;
        let watch = Watcher::synced(&suite, &other).await?;
        let fingerprint = other.fingerprint(wire::FingerprintRequest {}).await?;
        other.hang_up().await;
        drop((watch, fingerprint));
    }
    let session = subject.current();
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await?;
    let mut watcher = Watcher::synced(&suite, &driver).await?;
    driver.delete(&subject.id).await?;
    watcher.deleted(&subject.id).await?;
    Ok(())
}
