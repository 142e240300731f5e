//! How sandboxes end by themselves: at their deadline, whoever has died by then, and with a reason
//! that a program can read.

use std::time::Duration;

use cofferdam_proto::compute::v1::{
    CreateSandboxResponse, Sandbox, SandboxSpec, SandboxState, TerminationReason,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::images::{NOWHERE, nowhere};
use crate::answer::{refused_with, refused_with_one_of};
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::driver::Driver;
use crate::needs::Need;
use crate::spec::expire_in;
use crate::subject::Subject;
use crate::suite::Suite;
use crate::wait;

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// From the making of a sandbox to its deadline: long enough on most platforms.
const LIFETIME: Duration = Duration::from_secs(4);

/// On a platform that needs longer the next one lives so much longer.
const LIFETIME_FACTOR: u32 = 4;

/// As the contract has it: after the deadline, until everything must be gone.
pub(super) const SLACK: Duration = Duration::from_secs(10);

/// A supervisor that lives on calls within two seconds where somebody listens again.
const CALL_PATIENCE: Duration = Duration::from_secs(5);

const ENFORCE: &str = "let somebody end the sandbox who needs neither the gateway nor the \
                       supervisor: the platform, or a process of your own";

const SUPERVISED: &[Need] = &[Need::Supervised];

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.deadline.enforced",
        source: "SandboxSpec.expire_time_unix_ms",
        says: "The driver or the platform removes the sandbox's processes then, also when the \
               supervisor does not end itself.",
        fix: ENFORCE,
        needs: SUPERVISED,
        run: run!(enforced),
    },
    Case {
        id: "core.deadline.gateway-gone",
        source: "CreateSandbox",
        says: "At `expire_time_unix_ms` the processes are removed even if the gateway never calls \
               again.",
        fix: ENFORCE,
        needs: &[],
        run: run!(gateway_gone),
    },
    Case {
        id: "core.deadline.for-good",
        source: "TerminationReason.DEADLINE",
        says: "The state is FAILED_STATE, and it must not run again: a start is \
               FAILED_PRECONDITION, a delete works.",
        fix: "refuse to start what has failed or expired",
        needs: &[Need::StopStart],
        run: run!(for_good),
    },
    Case {
        id: "core.deadline.stopped",
        source: "StartSandbox",
        says: "A stopped sandbox whose expire time has passed is not started any more.",
        fix: "compare the expire time with the clock before a start",
        needs: &[Need::StopStart],
        run: run!(stopped),
    },
    Case {
        id: "core.ending.exit-code",
        source: "TerminationReason.EXITED",
        says: "The supervisor ended by itself, with this code; the sandbox is STOPPED.",
        fix: "take the exit code of the first process from the platform, and pass it on",
        needs: SUPERVISED,
        run: run!(exit_code),
    },
    Case {
        id: "core.ending.success",
        source: "TerminationReason.EXITED",
        says: "A supervisor that was told to end ends with code 0, and that is EXITED, too.",
        fix: "tell an end by itself from a stop by request",
        needs: SUPERVISED,
        run: run!(success),
    },
    Case {
        id: "core.ending.bad-supervisor",
        source: "Supervisor.sha256",
        says: "A driver checks the digest before it uses the file.",
        fix: "hash the very bytes that are handed to the sandbox, and refuse others",
        needs: SUPERVISED,
        run: run!(bad_supervisor),
    },
    Case {
        id: "core.ending.no-image",
        source: "TerminationReason.IMAGE_NOT_FOUND",
        says: "An image that is not there is NOT_FOUND at create, or the sandbox fails with a reason \
               that says so.",
        fix: "map the platform's errors about images to the IMAGE_ reasons",
        needs: &[],
        run: run!(no_image),
    },
];

/// A sandbox that is ready, and has at least half of its life before it. How soon a platform can have
/// one ready is not known beforehand: one that was not soon enough is left to the clean-up, and the
/// next one lives longer, up to what the suite's patience allows.
pub(super) async fn short_lived(
    suite: &Suite,
    driver: &Driver,
) -> Result<(Subject, CreateSandboxResponse), Stop> {
    let longest = 2 * suite.patience();
    let mut lifetime = LIFETIME.min(longest);
    loop {
        let subject = suite.subject_with(SandboxSpec {
            expire_time_unix_ms: expire_in(lifetime),
            ..suite.spec()
        })?;
        match timeout(lifetime / 2, subject.ready(driver)).await {
            Ok(made) => return made.map(|made| (subject, made)),
            Err(_) if lifetime == longest => fail!(
                "a sandbox was not ready within {} s",
                suite.patience().as_secs()
            ),
            Err(_) => lifetime = longest.min(LIFETIME_FACTOR * lifetime),
        }
    }
}

/// What it must look like after its deadline.
pub(super) fn must_have_expired(sandbox: &Sandbox, expire_time_unix_ms: u64) -> Verdict {
    let state = sandbox.state();
    ensure!(
        state == SandboxState::FailedState,
        "it is {} after its deadline",
        state.as_str_name()
    );
    let Some(ended) = &sandbox.termination else {
        crate::case::fail!("it has no termination");
    };
    let reason = ended.reason();
    ensure!(
        reason == TerminationReason::Deadline,
        "the reason is {}: {:?}",
        reason.as_str_name(),
        ended.message
    );
    let slack_ms = u64::try_from(SLACK.as_millis()).unwrap_or(u64::MAX);
    let (at, due) = (ended.time_unix_ms, expire_time_unix_ms);
    // Clocks are read twice.
    ensure!(
        at + 1000 >= due && at <= due + slack_ms,
        "it was due at {due} and ended at {at}"
    );
    Ok(())
}

async fn enforced(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let (subject, _) = short_lived(&suite, &driver).await?;
    let session = subject.session().await?;
    // The supervisor would end itself, which proves nothing about the driver.
    session
        .set_expire_time(expire_in(Duration::from_secs(3600)))
        .await?;
    suite.step("waiting for the sandbox's deadline");
    wait::until_wall_clock(subject.spec.expire_time_unix_ms).await;
    ensure!(
        session.ends_within(SLACK).await,
        "the supervisor still answers {} s after the deadline",
        SLACK.as_secs()
    );
    let sandbox = subject.observed(&driver, SandboxState::FailedState).await?;
    must_have_expired(&sandbox, subject.spec.expire_time_unix_ms)
}

async fn gateway_gone(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let (subject, _) = short_lived(&suite, &driver).await?;
    if let Some(callback) = &subject.callback {
        let session = callback.session().await?;
        session
            .set_expire_time(expire_in(Duration::from_secs(3600)))
            .await?;
        callback.close();
        session.cut();
    }
    driver.hang_up().await;
    suite.step("waiting for the sandbox's deadline, with the gateway gone");
    wait::until_wall_clock(subject.spec.expire_time_unix_ms).await;
    // Nobody can see meanwhile when it ends, without being the gateway again.
    sleep(SLACK).await;
    if let Some(callback) = &subject.callback {
        callback.listen()?;
        let lives = callback.session_within(CALL_PATIENCE).await.is_some();
        ensure!(
            !lives,
            "the supervisor lives on and has called again after the deadline"
        );
    }
    let driver = suite.driver().await?;
    let sandbox = subject.observed(&driver, SandboxState::FailedState).await?;
    must_have_expired(&sandbox, subject.spec.expire_time_unix_ms)
}

async fn for_good(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let (mut subject, _) = short_lived(&suite, &driver).await?;
    suite.step("waiting for the sandbox's deadline");
    wait::until_wall_clock(subject.spec.expire_time_unix_ms).await;
    let sandbox = subject.observed(&driver, SandboxState::FailedState).await?;
    must_have_expired(&sandbox, subject.spec.expire_time_unix_ms)?;
    refused_with(subject.start(&driver).await, Code::FailedPrecondition)?;
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}

async fn stopped(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let (mut subject, _) = short_lived(&suite, &driver).await?;
    driver.stop(&subject.id, 500).await?;
    wait::until_wall_clock(subject.spec.expire_time_unix_ms + 500).await;
    refused_with(subject.start(&driver).await, Code::FailedPrecondition)?;
    driver.delete(&subject.id).await?;
    subject.must_be_gone(&driver).await
}

/// STOPPED, EXITED, with this code.
fn must_have_exited(sandbox: &Sandbox, code: i32) -> Verdict {
    let Some(ended) = &sandbox.termination else {
        crate::case::fail!("it has no termination");
    };
    let reason = ended.reason();
    ensure!(
        reason == TerminationReason::Exited && ended.exit_code == code,
        "its supervisor ended with code {code}, and the termination is {} with exit_code {}",
        reason.as_str_name(),
        ended.exit_code
    );
    Ok(())
}

async fn exit_code(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    // Its own deadline, which the driver does not know of: it ends itself with 124.
    session.set_expire_time(wait::now_ms() + 2000).await?;
    let sandbox = subject.observed(&driver, SandboxState::Stopped).await?;
    must_have_exited(&sandbox, 124)
}

async fn success(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    session.shut_down().await?;
    let sandbox = subject.observed(&driver, SandboxState::Stopped).await?;
    must_have_exited(&sandbox, 0)
}

async fn no_image(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let Some(source) = nowhere(suite.capabilities().images.unwrap_or_default()) else {
        crate::case::skip!("the driver takes no images");
    };
    let mut spec = suite.spec();
    spec.image.get_or_insert_default().source = Some(source);
    let subject = suite.subject_with(spec)?;
    match subject.create(&driver).await {
        Err(refused) => {
            refused_with_one_of::<()>(Err(refused), &NOWHERE)?;
            Ok(())
        }
        Ok(_) => {
            let sandbox = subject.observed(&driver, SandboxState::FailedState).await?;
            let reason = sandbox.termination.unwrap_or_default().reason();
            let fitting = [
                TerminationReason::ImageNotFound,
                TerminationReason::ImageAccessDenied,
                TerminationReason::ImagePullFailed,
            ];
            ensure!(
                fitting.contains(&reason),
                "the image is nowhere, and the reason is {}",
                reason.as_str_name()
            );
            Ok(())
        }
    }
}

async fn bad_supervisor(suite: Suite) -> Verdict {
    let verdict = with_bad_supervisor(&suite).await;
    // The right one again, for whoever comes after, also when this has failed.
    suite.driver().await?;
    verdict
}

/// It is refused at the handshake, at the create, or when it is to be used.
async fn with_bad_supervisor(suite: &Suite) -> Verdict {
    let stranger = suite.stranger().await?;
    let mut hello = stranger.hello(suite.gateway_id());
    if let Some(supervisor) = hello.supervisor.as_mut() {
        supervisor.sha256 = vec![0x55; 32].into();
    }
    let refusals = [Code::FailedPrecondition, Code::InvalidArgument];
    if let Err(refused) = stranger.handshake(hello).await {
        refused_with_one_of::<()>(Err(refused), &refusals)?;
        return Ok(());
    }
    stranger.configure(&suite.options().config.settings).await?;
    let subject = suite.subject()?;
    if let Err(refused) = subject.create(&stranger).await {
        refused_with_one_of::<()>(Err(refused), &refusals)?;
        return Ok(());
    }
    let end = Instant::now() + suite.patience();
    loop {
        let sandbox = stranger.get(&subject.id).await?;
        match sandbox.state() {
            SandboxState::FailedState => {
                let reason = sandbox.termination.unwrap_or_default().reason();
                let expected = TerminationReason::SupervisorStartFailed;
                ensure!(
                    reason == expected,
                    "the reason is {} where {} was expected",
                    reason.as_str_name(),
                    expected.as_str_name()
                );
                return Ok(());
            }
            SandboxState::Running => fail!(
                "a sandbox runs with a supervisor whose digest is another than the handshake's"
            ),
            other => ensure!(
                Instant::now() < end,
                "the supervisor's digest is another than the handshake's, and after {} s the \
                 sandbox is {}",
                suite.patience().as_secs(),
                other.as_str_name()
            ),
        }
        sleep(LOOK_INTERVAL).await;
    }
}
