//! The driver is killed in the midst of a call and started again: a repeated call continues, and
//! nothing is left that nobody knows of.

use std::time::Duration;

use cofferdam_proto::compute::v1::recover_sandboxes_response::Outcome;
use cofferdam_proto::compute::v1::{Sandbox, SandboxState};
use tokio::time::sleep;

use super::recover::{item, recover};
use super::restart::restarted;
use super::stop::must_be_stopped;
use crate::answer::Refused;
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::driver::Driver;
use crate::needs::Need;
use crate::process::{Process, shell};
use crate::subject::Subject;
use crate::suite::Suite;

const STARTED: &[Need] = &[Need::StartCommand];
const STOP_START: &[Need] = &[Need::StartCommand, Need::StopStart];
const WITH_STREAM: &[Need] = &[Need::StartCommand, Need::StopStart, Need::Supervised];

/// When the driver dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// So long after a call has begun: early, and in the midst of what takes time.
    After(u64),
    /// When it has answered.
    Answered,
}

const DEATHS: [Death; 6] = [
    Death::After(0),
    Death::After(2),
    Death::After(6),
    Death::After(15),
    Death::After(40),
    Death::Answered,
];

/// A supervisor that was left behind calls again within two seconds.
const CALLS_AGAIN: Duration = Duration::from_secs(3);

const TRACES: &str = "make what belongs to a sandbox findable by its id before it can outlive you; \
                      look for it when the process starts, and for what is half made";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "faults.kill.in-create",
        source: "rule 2",
        says: "A state from which a repeated call can continue: after a create whose driver died, \
               the same create gives one sandbox that can be used.",
        fix: TRACES,
        needs: STARTED,
        run: run!(in_create),
    },
    Case {
        id: "faults.kill.create-forgotten",
        source: "CreateSandbox",
        says: "On an error nothing is left behind, or what is left is listed and can be deleted by \
               this id.",
        fix: TRACES,
        needs: STARTED,
        run: run!(create_forgotten),
    },
    Case {
        id: "faults.kill.in-delete",
        source: "DeleteSandbox",
        says: "Called again after its driver died, it removes the rest.",
        fix: "take away the record of a sandbox last, and the token of its supervisor first",
        needs: STARTED,
        run: run!(in_delete),
    },
    Case {
        id: "faults.kill.in-stop",
        source: "StopSandbox",
        says: "Called again after its driver died, it stops what still runs.",
        fix: "observe what runs when the process starts; do not believe what was begun",
        needs: WITH_STREAM,
        run: run!(in_stop),
    },
    Case {
        id: "faults.kill.in-start",
        source: "StartSandbox",
        says: "Called again after its driver died, the sandbox runs, in one new boot that can be \
               used.",
        fix: TRACES,
        needs: STOP_START,
        run: run!(in_start),
    },
];

/// Kills the driver so long after a call has begun, and starts it again. What the call said of it.
async fn killed_during<T>(
    suite: &Suite,
    death: Death,
    call: impl Future<Output = Result<T, Refused>>,
) -> Result<(Result<T, Refused>, Driver), Stop> {
    let answer = match death {
        Death::After(pause_ms) => {
            let kill = async {
                sleep(Duration::from_millis(pause_ms)).await;
                suite.kill_driver().await
            };
            let (answer, killed) = tokio::join!(call, kill);
            killed?;
            answer
        }
        Death::Answered => {
            let answer = call.await;
            suite.kill_driver().await?;
            answer
        }
    };
    suite.start_driver().await?;
    Ok((answer, suite.driver().await?))
}

async fn in_create(suite: Suite) -> Verdict {
    for death in DEATHS {
        let subject = suite.subject()?;
        let once = suite.driver().await?.once();
        let (_, driver) = killed_during(&suite, death, subject.create(&once)).await?;
        subject.ready(&driver).await?;
        must_be_once(&driver, &subject).await?;
        driver.delete(&subject.id).await?;
        subject.must_be_gone(&driver).await?;
    }
    Ok(())
}

async fn must_be_once(driver: &Driver, subject: &Subject) -> Verdict {
    let ids = driver.list_ids().await?;
    let count = ids.iter().filter(|id| **id == subject.id).count();
    ensure!(count == 1, "ListSandboxes has the sandbox {count} times");
    Ok(())
}

async fn create_forgotten(suite: Suite) -> Verdict {
    let mut subjects = Vec::new();
    for death in DEATHS {
        let subject = suite.subject()?;
        let once = suite.driver().await?.once();
        let (answer, driver) = killed_during(&suite, death, subject.create(&once)).await?;
        let results = recover(&suite, &driver, vec![item(&subject, None)]).await?;
        let is_listed = driver.list_ids().await?.contains(&subject.id);
        match (answer.is_ok(), results[0].outcome(), is_listed) {
            (_, Outcome::Recovered, true) | (false, Outcome::Gone, false) => {}
            (answered, outcome, _) => fail!(
                "{} it is {} ({:?}), and the complete list {} it",
                if answered {
                    "the create was answered, and after the driver's death".to_owned()
                } else {
                    format!("the driver was killed ({death:?}) before it answered the create, and")
                },
                outcome.as_str_name(),
                results[0].message,
                if is_listed { "has" } else { "does not have" }
            ),
        }
        driver.delete(&subject.id).await?;
        subject.must_be_gone(&driver).await?;
        subjects.push(subject);
    }
    nobody_calls(&subjects).await
}

/// What was deleted has nobody left who would call.
async fn nobody_calls(subjects: &[Subject]) -> Verdict {
    for callback in subjects.iter().filter_map(|one| one.callback.as_ref()) {
        callback.refuse().await?;
    }
    sleep(CALLS_AGAIN).await;
    for subject in subjects {
        let calls = subject.callback.as_ref().map(|one| one.connections());
        ensure!(
            calls.unwrap_or(0) == 0,
            "{} is deleted, and its supervisor lives on and calls",
            subject.id
        );
    }
    Ok(())
}

async fn in_delete(suite: Suite) -> Verdict {
    let mut subjects = Vec::new();
    for death in DEATHS {
        let (driver, subject) = suite.with_sandbox().await?;
        let session = subject.current();
        let call = driver.delete(&subject.id);
        let (_, driver) = killed_during(&suite, death, call).await?;
        driver.delete(&subject.id).await?;
        subject.must_be_gone(&driver).await?;
        if let Some(session) = session {
            subject.must_be_silent(&session).await?;
        }
        subjects.push(subject);
    }
    nobody_calls(&subjects).await
}

async fn in_stop(suite: Suite) -> Verdict {
    for death in [Death::After(5), Death::After(100)] {
        let (driver, subject, session) = suite.with_session().await?;
        let script = "trap '' TERM INT HUP QUIT; echo up; while :; do sleep 1; done";
        let mut process = Process::start(&suite, &session, shell(script)).await?;
        process.read_until("up").await?;
        let call = driver.stop(&subject.id, 5000);
        let (_, driver) = killed_during(&suite, death, call).await?;
        let now: Sandbox = driver.get(&subject.id).await?;
        ensure!(
            matches!(now.state(), SandboxState::Running | SandboxState::Stopped),
            "after the restart it is {}",
            now.state().as_str_name()
        );
        let stopped = driver.stop(&subject.id, 0).await?;
        ensure!(
            stopped.state() == SandboxState::Stopped,
            "the repeated StopSandbox answered with {}",
            stopped.state().as_str_name()
        );
        subject.must_be_silent(&session).await?;
    }
    Ok(())
}

async fn in_start(suite: Suite) -> Verdict {
    for death in DEATHS {
        let (driver, mut subject) = suite.with_sandbox().await?;
        let session = subject.current();
        must_be_stopped(&driver.stop(&subject.id, 500).await?)?;
        let once = driver.once();
        let (_, driver) = killed_during(&suite, death, subject.start(&once)).await?;
        // As a gateway that has lost the answer: the same call again.
        driver.start_with(subject.start_request()).await?;
        let now = subject.running(&driver).await?;
        ensure!(
            now.boots > 1,
            "it was started again, and boots is {}",
            now.boots
        );
        if let Some(session) = session {
            subject.next_boot(&session).await?.must_answer().await?;
        }
        must_be_once(&driver, &subject).await?;
        driver.delete(&subject.id).await?;
        subject.must_be_gone(&driver).await?;
    }
    // Nothing of all that is in the way of a next one.
    let driver = restarted(&suite).await?;
    let subject = suite.subject()?;
    subject.ready(&driver).await?;
    Ok(())
}
