//! PauseSandbox and ResumeSandbox.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::SandboxState;
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::answer::{Refused, refused_with};
use crate::callback::Callback;
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::driver::Driver;
use crate::needs::Need;
use crate::process::{Process, say, shell};
use crate::suite::Suite;
use crate::wait::Looks;
use crate::watcher::Watcher;

const FREEZE: &str = "freeze the whole sandbox on the platform (cgroup freezer, the engine's pause, \
    the virtual machine's stop), not only its first process";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "snapshot.pause.freezes",
        source: "PauseSandbox",
        says: "Freezes all processes, and thaws them where they were.",
        fix: FREEZE,
        needs: &[Need::Supervised, Need::Pause],
        run: run!(freezes),
    },
    Case {
        id: "snapshot.pause.idempotent",
        source: "PauseSandbox, ResumeSandbox",
        says: "Idempotent: a paused sandbox is paused, and a running one runs.",
        fix: "look at the state first",
        needs: &[Need::Pause],
        run: run!(idempotent),
    },
    Case {
        id: "snapshot.pause.told",
        source: "WatchSandboxes, SandboxState",
        says: "PAUSED, and RUNNING again, are told in order, of the same boot.",
        fix: "record the change before the answer",
        needs: &[Need::Pause],
        run: run!(told),
    },
    Case {
        id: "snapshot.pause.deleted",
        source: "DeleteSandbox",
        says: "Legal in every state, also in PAUSED.",
        fix: "thaw before killing, or kill what is frozen",
        needs: &[Need::Pause],
        run: run!(deleted),
    },
    Case {
        id: "snapshot.pause.unknown",
        source: "PauseSandbox",
        says: "NOT_FOUND for a sandbox that is not known.",
        fix: "look the sandbox up first",
        needs: &[Need::Pause],
        run: run!(unknown),
    },
];

async fn pause(suite: &Suite, driver: &Driver, id: &str) -> Result<wire::Sandbox, Refused> {
    let request = wire::PauseSandboxRequest {
        sandbox_id: id.to_owned(),
        operation_id: "op-pause".to_owned(),
    };
    let sandbox = driver
        .pause_with(request)
        .await?
        .sandbox
        .unwrap_or_default();
    suite.recorder().observation("PauseSandbox", &sandbox);
    Ok(sandbox)
}

async fn resume(suite: &Suite, driver: &Driver, id: &str) -> Result<wire::Sandbox, Refused> {
    let request = wire::ResumeSandboxRequest {
        sandbox_id: id.to_owned(),
        operation_id: "op-resume".to_owned(),
    };
    let answer = driver.resume_with(request).await?;
    let sandbox = answer.sandbox.unwrap_or_default();
    suite.recorder().observation("ResumeSandbox", &sandbox);
    Ok(sandbox)
}

fn must_be(sandbox: &wire::Sandbox, what: &str, wanted: SandboxState) -> Verdict {
    ensure!(
        sandbox.state() == wanted,
        "{what} answered with a sandbox that is {}, and {} was expected",
        sandbox.state().as_str_name(),
        wanted.as_str_name()
    );
    Ok(())
}

/// Counts as long as it may; one of them has lost its parent.
const COUNTS: &str = "(sh -c 'while :; do echo x >> orphan; sleep 0.05; done' &); echo ready; \
    while :; do echo y; sleep 0.05; done";

async fn freezes(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let mut process = Process::start(&suite, &session, shell(COUNTS)).await?;
    process.read_until("ready\ny\ny").await?;
    let id = process.id.clone();
    must_be(
        &pause(&suite, &driver, &subject.id).await?,
        "PauseSandbox",
        SandboxState::Paused,
    )?;
    // What was on its way may still come; after that nothing does.
    ensure!(
        falls_silent(&mut process, suite.patience() / 2).await?,
        "the sandbox is paused, and a process in it goes on writing"
    );
    let at = process.output.end();
    must_be(
        &resume(&suite, &driver, &subject.id).await?,
        "ResumeSandbox",
        SandboxState::Running,
    )?;
    // The stream may have been taken down with it, and is up again then.
    let now = subject.same_boot(&session).await?;
    let mut again = Process::attach(&suite, &now, &id, at).await?;
    again.read_until("y\ny\ny").await?;
    let before = say(&suite, &now, "wc -l < orphan").await?;
    let mut looks = Looks::within(suite.patience() / 3);
    while looks.again().await {
        if say(&suite, &now, "wc -l < orphan").await? != before {
            return Ok(());
        }
    }
    fail!("after the pause a process that lost its parent does not go on")
}

/// Sixty times what `COUNTS` waits between two lines: longer than a busy machine lets one that runs
/// be silent.
const SILENCE: Duration = Duration::from_secs(3);

/// Reads what comes until nothing does for a while; false for one that does not stop.
async fn falls_silent(process: &mut Process, patience: Duration) -> Result<bool, Stop> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        match timeout(SILENCE, process.step()).await {
            Ok(step) => ensure!(step?, "a paused process ended: {}", process.output.ending()),
            Err(_) => return Ok(true),
        }
    }
    Ok(false)
}

async fn idempotent(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let running = resume(&suite, &driver, &subject.id).await?;
    must_be(
        &running,
        "ResumeSandbox of a running one",
        SandboxState::Running,
    )?;
    for time in ["the first PauseSandbox", "the second PauseSandbox"] {
        let paused = pause(&suite, &driver, &subject.id).await?;
        must_be(&paused, time, SandboxState::Paused)?;
        must_be(
            &driver.get(&subject.id).await?,
            "GetSandbox",
            SandboxState::Paused,
        )?;
    }
    for time in ["the first ResumeSandbox", "the second ResumeSandbox"] {
        let resumed = resume(&suite, &driver, &subject.id).await?;
        must_be(&resumed, time, SandboxState::Running)?;
    }
    must_be(
        &driver.get(&subject.id).await?,
        "GetSandbox",
        SandboxState::Running,
    )
}

async fn told(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let mut watcher = Watcher::synced(&suite, &driver).await?;
    pause(&suite, &driver, &subject.id).await?;
    let (paused, _) = watcher.state(&subject.id, SandboxState::Paused).await?;
    resume(&suite, &driver, &subject.id).await?;
    let (running, _) = watcher.state(&subject.id, SandboxState::Running).await?;
    ensure!(
        paused.boots == running.boots && paused.revision < running.revision,
        "PAUSED is of boot {} and revision {}, RUNNING of boot {} and revision {}",
        paused.boots,
        paused.revision,
        running.boots,
        running.revision
    );
    Ok(())
}

async fn deleted(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let session = subject.callback.as_ref().and_then(Callback::current);
    pause(&suite, &driver, &subject.id).await?;
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await?;
    match session {
        Some(session) => subject.must_be_silent(&session).await,
        None => Ok(()),
    }
}

async fn unknown(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    refused_with(pause(&suite, &driver, "conf-nobody").await, Code::NotFound)?;
    refused_with(resume(&suite, &driver, "conf-nobody").await, Code::NotFound)?;
    Ok(())
}
