//! The driver's process dies and is started anew: what it was responsible for is still there, and
//! nothing of before is taken for something of now.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::SandboxState;
use cofferdam_proto::compute::v1::recover_sandboxes_response::Outcome;
use tonic::Code;

use super::ending::{SLACK, must_have_expired, short_lived};
use super::recover::{item, must_be, recover};
use super::stop::must_be_stopped;
use super::watch::refused_cursor;
use crate::answer::refused_with;
use crate::case::{Case, Stop, Verdict, ensure, run};
use crate::driver::Driver;
use crate::needs::Need;
use crate::process::{Process, shell};
use crate::spec::expire_in;
use crate::suite::Suite;
use crate::wait;
use crate::watcher::Watcher;

const STARTED: &[Need] = &[Need::StartCommand];
const WITH_STREAM: &[Need] = &[Need::StartCommand, Need::Supervised];
const STOP_START: &[Need] = &[Need::StartCommand, Need::StopStart];

const KEEP: &str = "keep what is needed on the platform itself (labels) or in files of your own, \
                    and look for it when the process starts";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "faults.restart.incarnation",
        source: "HandshakeResponse.incarnation",
        says: "New at each start of the driver process.",
        fix: "make the incarnation from random bytes when the process starts; store it nowhere",
        needs: STARTED,
        run: run!(incarnation),
    },
    Case {
        id: "faults.restart.old-cursor",
        source: "WatchSandboxes",
        says: "Cursors belong to one incarnation: one of before is OUT_OF_RANGE.",
        fix: "put the incarnation into the cursor, and compare it",
        needs: STARTED,
        run: run!(old_cursor),
    },
    Case {
        id: "faults.restart.old-page-token",
        source: "ListSandboxes",
        says: "A page token that is not from this incarnation is INVALID_ARGUMENT.",
        fix: "put the incarnation into the token, and compare it",
        needs: STARTED,
        run: run!(old_page_token),
    },
    Case {
        id: "faults.restart.sandboxes-stay",
        source: "RecoverSandboxes",
        says: "After a restart of the driver its sandboxes are there again, of the same boot, and \
               can be used.",
        fix: KEEP,
        needs: STARTED,
        run: run!(sandboxes_stay),
    },
    Case {
        id: "faults.restart.listed",
        source: "ListSandboxes",
        says: "Everything that exists on the platform is listed, also before it was recovered.",
        fix: KEEP,
        needs: STARTED,
        run: run!(listed),
    },
    Case {
        id: "faults.restart.processes-stay",
        source: "RecoverSandboxes",
        says: "Starts and runs nothing: what ran in a sandbox runs on, and all of its output comes.",
        fix: "let no process of a sandbox be a child of the driver that ends with it",
        needs: WITH_STREAM,
        run: run!(processes_stay),
    },
    Case {
        id: "faults.restart.same-create",
        source: "CreateSandbox",
        says: "Idempotent on `sandbox_id`, also over a restart: the same spec again gives the same \
               sandbox, another spec is ALREADY_EXISTS.",
        fix: "store a digest of the spec with the sandbox",
        needs: STARTED,
        run: run!(same_create),
    },
    Case {
        id: "faults.restart.stopped",
        source: "RecoverSandboxes",
        says: "A sandbox that has stopped is recovered as stopped; it can be started, and the boots \
               go on being counted.",
        fix: KEEP,
        needs: STOP_START,
        run: run!(stopped),
    },
    Case {
        id: "faults.restart.asked",
        source: "the socket",
        says: "On SIGTERM a driver finishes what is under way within a few seconds and exits with 0; \
               its sandboxes go on.",
        fix: "take SIGTERM as the end of the driver, not of what it has made",
        needs: STARTED,
        run: run!(asked),
    },
    Case {
        id: "faults.restart.deadline",
        source: "SandboxSpec.expire_time_unix_ms",
        says: "The processes are removed then, whoever else has died: also if the driver was dead \
               at that time.",
        fix: "look for what has expired when the process starts, unless the platform does it",
        needs: STARTED,
        run: run!(deadline),
    },
];

/// Kills the driver and starts it again; a new connection.
pub(super) async fn restarted(suite: &Suite) -> Result<Driver, Stop> {
    suite.kill_driver().await?;
    suite.start_driver().await?;
    suite.driver().await
}

async fn incarnation(suite: Suite) -> Verdict {
    let mut seen = vec![suite.driver().await?.incarnation().to_owned()];
    for _ in 0..2 {
        let now = restarted(&suite).await?.incarnation().to_owned();
        ensure!(
            !seen.contains(&now),
            "the process was started anew, and its incarnation is {now:?} as before"
        );
        seen.push(now);
    }
    Ok(())
}

async fn old_cursor(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let watcher = Watcher::synced(&suite, &driver).await?;
    let cursor = watcher.told.last().map(|last| last.cursor.clone());
    let driver = restarted(&suite).await?;
    refused_cursor(&suite, &driver, &cursor.unwrap_or_default()).await
}

async fn old_page_token(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    suite.several(&driver, 2).await?;
    let mut request = wire::ListSandboxesRequest {
        page_size: 1,
        page_token: String::new(),
    };
    request.page_token = driver.list_with(request.clone()).await?.next_page_token;
    ensure!(
        !request.page_token.is_empty(),
        "two sandboxes were on one page of 1"
    );
    let driver = restarted(&suite).await?;
    refused_with(driver.list_with(request).await, Code::InvalidArgument)?;
    Ok(())
}

async fn sandboxes_stay(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let made = subject.ready(&driver).await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    let driver = restarted(&suite).await?;
    let results = recover(&suite, &driver, vec![item(&subject, made.handle)]).await?;
    must_be(&results[0], Outcome::Recovered)?;
    subject.running(&driver).await?;
    subject.must_be_untouched(&driver, &before, None).await?;
    match session {
        Some(session) => subject.same_boot(&session).await.map(|_| ()),
        None => Ok(()),
    }
}

async fn listed(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subjects = suite.several(&driver, 2).await?;
    let driver = restarted(&suite).await?;
    let ids = driver.list_ids().await?;
    for subject in &subjects {
        ensure!(
            ids.contains(&subject.id),
            "after the restart the list is complete and does not have {}: {ids:?}",
            subject.id
        );
        driver.delete(&subject.id).await?;
        subject.must_be_gone(&driver).await?;
    }
    Ok(())
}

async fn processes_stay(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let made = subject.ready(&driver).await?;
    let session = subject.session().await?;
    // It waits for the file, so that its end lies behind the restart.
    let script = "echo before; while [ ! -e go ]; do sleep 0.1; done; echo after; exit 7";
    let mut process = Process::start(&suite, &session, shell(script)).await?;
    process.read_until("before").await?;
    let (id, from) = (process.id.clone(), process.output.end());
    drop(process);
    let driver = restarted(&suite).await?;
    recover(&suite, &driver, vec![item(&subject, made.handle)]).await?;
    let session = subject.same_boot(&session).await?;
    crate::process::say(&suite, &session, "touch go").await?;
    let mut process = Process::attach(&suite, &session, &id, from).await?;
    process.finish().await?;
    ensure!(
        process.output.text() == "after\n" && process.output.code() == Some(7),
        "after the restart came {:?} and {}",
        process.output.text(),
        process.output.ending()
    );
    Ok(())
}

async fn same_create(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    let driver = restarted(&suite).await?;
    subject.create(&driver).await?;
    subject.must_be_untouched(&driver, &before, None).await?;
    let mut other = subject.request();
    if let Some(spec) = other.spec.as_mut() {
        spec.labels.insert("another".to_owned(), "label".to_owned());
    }
    refused_with(driver.create_with(other).await, Code::AlreadyExists)?;
    subject.must_be_untouched(&driver, &before, None).await
}

async fn stopped(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut subject = suite.subject()?;
    let made = subject.ready(&driver).await?;
    let session = subject.current();
    driver.stop(&subject.id, 1000).await?;
    let driver = restarted(&suite).await?;
    let results = recover(&suite, &driver, vec![item(&subject, made.handle)]).await?;
    must_be(&results[0], Outcome::Recovered)?;
    must_be_stopped(&results[0].sandbox.clone().unwrap_or_default())?;
    subject.start(&driver).await?;
    let now = subject.running(&driver).await?;
    ensure!(
        now.boots == 2,
        "boots is {} after the second start",
        now.boots
    );
    match session {
        Some(session) => subject.next_boot(&session).await?.must_answer().await,
        None => Ok(()),
    }
}

async fn asked(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject()?;
    let made = subject.ready(&driver).await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    // Streams that are open are no reason to go on.
    let watcher = Watcher::synced(&suite, &driver).await?;
    suite.end_driver().await?;
    drop(watcher);
    suite.start_driver().await?;
    let driver = suite.driver().await?;
    let results = recover(&suite, &driver, vec![item(&subject, made.handle)]).await?;
    must_be(&results[0], Outcome::Recovered)?;
    subject.must_be_untouched(&driver, &before, None).await?;
    match session {
        Some(session) => subject.same_boot(&session).await.map(|_| ()),
        None => Ok(()),
    }
}

async fn deadline(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let (subject, made) = short_lived(&suite, &driver).await?;
    let due = subject.spec.expire_time_unix_ms;
    let session = subject.current();
    if let Some(session) = &session {
        // It would end itself, which proves nothing about the driver.
        let later = expire_in(Duration::from_secs(3600));
        session.set_expire_time(later).await?;
    }
    suite.kill_driver().await?;
    suite.step("waiting for the deadline of a sandbox whose driver is dead");
    wait::until_wall_clock(due + 500).await;
    suite.start_driver().await?;
    let driver = suite.driver().await?;
    recover(&suite, &driver, vec![item(&subject, made.handle)]).await?;
    let sandbox = subject.observed(&driver, SandboxState::FailedState).await?;
    must_have_expired(&sandbox, due)?;
    if let Some(session) = &session {
        ensure!(
            session.ends_within(SLACK).await,
            "it is told to have expired, and its supervisor still answers"
        );
    }
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}
