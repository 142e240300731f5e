//! StopSandbox and StartSandbox: one boot after the other, with the workspace kept.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::{Sandbox, SandboxState, TerminationReason};
use tokio::time::Instant;
use tonic::Code;

use crate::answer::refused_with;
use crate::case::{Case, Verdict, ensure, fail, run, skip};
use crate::needs::Need;
use crate::process::{Process, say, shell};
use crate::suite::Suite;

const STOP_START: &[Need] = &[Need::StopStart];
const WITH_STREAM: &[Need] = &[Need::StopStart, Need::Supervised];

/// A stop that takes this long tells something about calls beside it. A supervisor gives what runs
/// below it ten seconds at most.
const TELLING_STOP: Duration = Duration::from_secs(4);

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.stop.stopped",
        source: "StopSandbox",
        says: "Answers only when nothing of it runs any more: STOPPED, by request.",
        fix: "wait for the platform's word before you answer",
        needs: STOP_START,
        run: run!(stopped),
    },
    Case {
        id: "core.stop.stubborn",
        source: "StopSandbox",
        says: "Asks politely, and kills after the grace; 0 kills at once.",
        fix: "kill the whole sandbox when the grace is over",
        needs: WITH_STREAM,
        run: run!(stubborn),
    },
    Case {
        id: "core.stop.others-go-on",
        source: "rule 5",
        says: "Calls for different sandboxes do not wait for each other: while one is being \
               stopped, another is observed and deleted.",
        fix: "hold no lock of the whole driver while you wait for the platform",
        needs: WITH_STREAM,
        run: run!(others_go_on),
    },
    Case {
        id: "core.stop.again",
        source: "StopSandbox",
        says: "OK if it is stopped; NOT_FOUND for an id that is not known.",
        fix: "answer with what is observed when there is nothing to do",
        needs: STOP_START,
        run: run!(stop_again),
    },
    Case {
        id: "core.start.next-boot",
        source: "StartSandbox",
        says: "Starts a stopped sandbox: the same id, a new boot, a fresh token for the new \
               supervisor.",
        fix: "start the supervisor anew with the request's token, and count the boots",
        needs: STOP_START,
        run: run!(next_boot),
    },
    Case {
        id: "core.start.workspace-kept",
        source: "StartSandbox",
        says: "The workspace is kept.",
        fix: "keep the workspace apart from what a boot makes",
        needs: WITH_STREAM,
        run: run!(workspace_kept),
    },
    Case {
        id: "core.start.again",
        source: "StartSandbox",
        says: "OK if it runs, and nothing changes; NOT_FOUND for an id that is not known.",
        fix: "answer with what is observed when there is nothing to do",
        needs: STOP_START,
        run: run!(start_again),
    },
];

pub(super) fn must_be_stopped(sandbox: &Sandbox) -> Verdict {
    let state = sandbox.state();
    ensure!(
        state == SandboxState::Stopped,
        "the answer says {}",
        state.as_str_name()
    );
    let reason = sandbox.termination.as_ref().map(|ended| ended.reason());
    ensure!(
        reason == Some(TerminationReason::StoppedByRequest),
        "the reason is {:?} where STOPPED_BY_REQUEST was expected",
        reason.map(|reason| reason.as_str_name())
    );
    Ok(())
}

async fn stopped(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let session = subject.current();
    must_be_stopped(&driver.stop(&subject.id, 2000).await?)?;
    must_be_stopped(&driver.get(&subject.id).await?)?;
    match session {
        Some(session) => subject.must_be_silent(&session).await,
        None => Ok(()),
    }
}

async fn stubborn(suite: Suite) -> Verdict {
    for grace_ms in [0, 300] {
        let (driver, subject, session) = suite.with_session().await?;
        let script = "trap '' TERM INT HUP QUIT; echo up; while :; do sleep 1; done";
        let mut process = Process::start(&suite, &session, shell(script)).await?;
        process.read_until("up").await?;
        must_be_stopped(&driver.stop(&subject.id, grace_ms).await?)?;
        subject.must_be_silent(&session).await?;
    }
    Ok(())
}

async fn others_go_on(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let neighbour = suite.subject()?;
    neighbour.ready(&driver).await?;
    let script = "trap '' TERM INT HUP QUIT; echo up; while :; do sleep 1; done";
    let mut process = Process::start(&suite, &session, shell(script)).await?;
    process.read_until("up").await?;
    let grace = suite.patience();
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let patient = driver.within(grace * 2);
    let begun = Instant::now();
    let stop = patient.stop(&subject.id, grace_ms);
    let other = async {
        driver.get(&neighbour.id).await?;
        driver.delete(&neighbour.id).await?;
        neighbour.must_be_gone(&driver).await
    };
    tokio::select! {
        biased;
        lived = other => lived?,
        stopped = stop => {
            stopped?;
            let took = begun.elapsed();
            if took < TELLING_STOP {
                skip!("what does not want to end was stopped at once: nothing could be seen beside it");
            }
            fail!(
                "one sandbox was being stopped for {} s, and another could not be observed and \
                 deleted meanwhile",
                took.as_secs()
            );
        }
    }
    // It takes over from the stop.
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}

async fn stop_again(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let first = driver.stop(&subject.id, 1000).await?;
    let again = driver.stop(&subject.id, 1000).await?;
    must_be_stopped(&again)?;
    ensure!(
        first.termination == again.termination,
        "the termination was {:?}, then {:?}",
        first.termination,
        again.termination
    );
    let unknown = format!("conf-{}", crate::random::word());
    refused_with(driver.stop(&unknown, 0).await, Code::NotFound)?;
    Ok(())
}

async fn next_boot(suite: Suite) -> Verdict {
    let (driver, mut subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    for boot in 2..=3 {
        driver.stop(&subject.id, 1000).await?;
        subject.start(&driver).await?;
        let now = subject.running(&driver).await?;
        ensure!(
            now.boots == boot,
            "boots is {} after start {boot}",
            now.boots
        );
        ensure!(
            now.create_time_unix_ms == before.create_time_unix_ms,
            "create_time_unix_ms has changed with a start"
        );
        if let Some(session) = &session {
            subject.next_boot(session).await?;
        }
    }
    Ok(())
}

async fn workspace_kept(suite: Suite) -> Verdict {
    let (driver, mut subject, session) = suite.with_session().await?;
    say(&suite, &session, "mkdir d && echo kept > d/file").await?;
    driver.stop(&subject.id, 1000).await?;
    subject.start(&driver).await?;
    let next = subject.next_boot(&session).await?;
    let kept = say(&suite, &next, "cat d/file").await?;
    ensure!(kept == "kept", "the file holds {kept:?}");
    Ok(())
}

async fn start_again(suite: Suite) -> Verdict {
    let (driver, mut subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    let answer = subject.start(&driver).await?;
    ensure!(
        answer.state() == SandboxState::Running,
        "the answer says {}",
        answer.state().as_str_name()
    );
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await?;
    let request = wire::StartSandboxRequest {
        sandbox_id: format!("conf-{}", crate::random::word()),
        ..subject.start_request()
    };
    refused_with(driver.start_with(request).await, Code::NotFound)?;
    Ok(())
}
