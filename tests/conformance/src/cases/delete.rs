//! DeleteSandbox: legal in every state, and nothing is left.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::watch_sandboxes_response::Event;
use cofferdam_proto::compute::v1::{SandboxSpec, SandboxState};
use futures_util::future::join_all;

use crate::case::{Case, Verdict, ensure, run};
use crate::needs::Need;
use crate::process::{Process, shell};
use crate::spec::expire_in;
use crate::suite::Suite;
use crate::wait;
use crate::watcher::{Watcher, describe};

/// When a sandbox expires that is to fail.
const SOON: Duration = Duration::from_secs(5);

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.delete.unknown",
        source: "DeleteSandbox",
        says: "OK for an id that is not known, or not any more.",
        fix: "answer OK when there is nothing to delete",
        needs: &[],
        run: run!(unknown),
    },
    Case {
        id: "core.delete.running",
        source: "DeleteSandbox",
        says: "Removes it with all that belongs to it, and answers when nothing is left.",
        fix: "answer only after the platform says that it is gone",
        needs: &[],
        run: run!(running),
    },
    Case {
        id: "core.delete.stubborn",
        source: "DeleteSandbox",
        says: "Removes it with all that belongs to it, also processes that do not want to end.",
        fix: "kill the whole sandbox, not only its first process",
        needs: &[Need::Supervised],
        run: run!(stubborn),
    },
    Case {
        id: "core.delete.stopped",
        source: "DeleteSandbox",
        says: "Legal in every state: STOPPED.",
        fix: "remove what a stopped sandbox keeps, too",
        needs: &[Need::StopStart],
        run: run!(stopped),
    },
    Case {
        id: "core.delete.ended",
        source: "DeleteSandbox",
        says: "Legal in every state: STOPPED by itself.",
        fix: "remove what is left of a sandbox whose supervisor has ended",
        needs: &[Need::Supervised],
        run: run!(ended),
    },
    Case {
        id: "core.delete.failed",
        source: "DeleteSandbox",
        says: "Legal in every state: FAILED_STATE, in which only Delete helps.",
        fix: "remove what is left of a sandbox that has failed",
        needs: &[],
        run: run!(failed),
    },
    Case {
        id: "core.delete.paused",
        source: "DeleteSandbox",
        says: "Legal in every state: PAUSED.",
        fix: "thaw a frozen sandbox before or while it is killed",
        needs: &[Need::Pause],
        run: run!(paused),
    },
    Case {
        id: "core.delete.creating",
        source: "DeleteSandbox",
        says: "Legal while it is being created: it takes over from any other operation, which ends \
               with ABORTED.",
        fix: "stop the pending operation of this sandbox, then delete what it has made",
        needs: &[],
        run: run!(creating),
    },
    Case {
        id: "core.delete.twice",
        source: "rule 3",
        says: "Every RPC may come twice, at any time: a repeated delete is OK.",
        fix: "answer OK when another call has deleted it",
        needs: &[],
        run: run!(twice),
    },
];

async fn unknown(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let id = format!("conf-{}", crate::random::word());
    driver.delete(&id).await?;
    driver.delete(&id).await?;
    Ok(())
}

async fn running(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let session = subject.current();
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await?;
    match session {
        Some(session) => subject.must_be_silent(&session).await,
        None => Ok(()),
    }
}

async fn stubborn(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let script = "trap '' TERM INT HUP QUIT; (trap '' TERM HUP; sleep 600) & echo up; sleep 600";
    let mut process = Process::start(&suite, &session, shell(script)).await?;
    process.read_until("up").await?;
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await?;
    subject.must_be_silent(&session).await
}

async fn stopped(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let sandbox = driver.stop(&subject.id, 1000).await?;
    ensure!(
        sandbox.state() == SandboxState::Stopped,
        "StopSandbox answered with {}",
        sandbox.state().as_str_name()
    );
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}

async fn ended(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    session.shut_down().await?;
    subject.observed(&driver, SandboxState::Stopped).await?;
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}

async fn failed(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let subject = suite.subject_with(SandboxSpec {
        expire_time_unix_ms: expire_in(SOON),
        ..suite.spec()
    })?;
    subject.create(&driver).await?;
    suite.step("waiting for the sandbox's deadline");
    wait::until_wall_clock(subject.spec.expire_time_unix_ms).await;
    subject.observed(&driver, SandboxState::FailedState).await?;
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}

async fn paused(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let request = wire::PauseSandboxRequest {
        sandbox_id: subject.id.clone(),
        operation_id: "op-pause".to_owned(),
    };
    driver.pause_with(request).await?;
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}

async fn creating(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut watcher = Watcher::synced(&suite, &driver).await?;
    let mut subjects = Vec::new();
    for pause_ms in [0, 2, 10, 50] {
        let subject = suite.subject()?;
        let once = driver.once();
        let create = subject.create(&once);
        let delete = async {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            driver.delete(&subject.id).await
        };
        let (created, deleted) = tokio::join!(create, delete);
        deleted?;
        match created {
            // The create came after the delete, or before it.
            Ok(_) => driver.delete(&subject.id).await?,
            Err(refused) => ensure!(
                refused.code() == Some(tonic::Code::Aborted),
                "the create that the delete took over from: {refused}; ABORTED was expected"
            ),
        }
        subject.must_be_gone(&driver).await?;
        subjects.push(subject);
    }
    // Nothing may come back after that.
    watcher.fence(&driver).await?;
    for subject in subjects {
        subject.must_be_gone(&driver).await?;
        if let Some(last) = watcher.about(&subject.id).last() {
            ensure!(
                matches!(last.event, Some(Event::Deleted(_))),
                "it is deleted, and the last that watchers are told is: {}",
                describe(last)
            );
        }
    }
    Ok(())
}

async fn twice(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let calls = (0..3).map(|_| driver.delete(&subject.id));
    join_all(calls)
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}
