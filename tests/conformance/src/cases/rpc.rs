//! Rules of all RPCs: deadlines are kept, and what is not claimed is UNIMPLEMENTED.

use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use cofferdam_proto::compute::v1::{Execution, SandboxState};
use prost::Message;
use tokio::time::Instant;
use tonic::Code;

use crate::answer::{How, Refused, refused_with, refused_with_one_of};
use crate::case::{Case, Stop, Verdict, ensure, fail, run, skip};
use crate::driver::{ANSWER_MARGIN, Answers};
use crate::needs::Need;
use crate::process::{Process, shell};
use crate::suite::Suite;

/// Of calls that are meant to be too short.
const SHORT: Duration = Duration::from_millis(800);

/// Longer than any case: a driver that waits for it ignores its deadline.
const GRACE_MS: u64 = 600_000;

/// A call whose deadline has passed ends in one of these ways, as gRPC libraries have it.
const ENDED: &[Code] = &[Code::DeadlineExceeded, Code::Cancelled];

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.rpc.deadline-of-stream",
        source: "rule 2",
        says: "A driver stops working on an RPC when its deadline passes: also on a stream.",
        fix: "keep the deadline of the header `grpc-timeout` on streams, too; most gRPC servers do \
              it if they are asked",
        needs: &[],
        run: run!(deadline_of_stream),
    },
    Case {
        id: "core.rpc.deadline-of-call",
        source: "rule 2",
        says: "A driver stops working on an RPC when its deadline passes, and leaves a state from \
               which a repeated call continues.",
        fix: "end what waits for the platform when the call's deadline passes or it is cancelled",
        needs: &[Need::StopStart, Need::Supervised],
        run: run!(deadline_of_call),
    },
    Case {
        id: "core.rpc.unclaimed",
        source: "errors",
        says: "UNIMPLEMENTED: not in this driver's capabilities.",
        fix: "answer UNIMPLEMENTED, or claim the capability",
        needs: &[],
        run: run!(unclaimed),
    },
];

async fn deadline_of_stream(suite: Suite) -> Verdict {
    let driver = suite.driver().await?.within(SHORT);
    let begun = Instant::now();
    let fingerprint = driver.fingerprint(wire::FingerprintRequest {}).await?;
    must_end("Fingerprint", fingerprint, begun).await?;
    let begun = Instant::now();
    let request = wire::WatchSandboxesRequest::default();
    must_end("WatchSandboxes", driver.watch_with(request).await?, begun).await
}

/// The stream must end by itself, with the status that says why.
async fn must_end<R: Message>(rpc: &str, mut stream: Answers<R>, begun: Instant) -> Verdict {
    let end = begun + SHORT + ANSWER_MARGIN;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match stream.next_within(left).await {
            Ok(Some(_)) if Instant::now() < end => {}
            Ok(None) => fail!("{rpc} ended with OK at its deadline, as if that were all"),
            Ok(Some(_))
            | Err(Refused {
                how: How::Silent(_),
                ..
            }) => fail!(
                "{rpc} with a deadline of {} ms goes on {} s after that",
                SHORT.as_millis(),
                ANSWER_MARGIN.as_secs()
            ),
            Err(refused) => {
                refused_with_one_of::<()>(Err(refused), ENDED)?;
                return Ok(());
            }
        }
    }
}

async fn deadline_of_call(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let script = "trap '' TERM INT HUP QUIT; echo up; while :; do sleep 1; done";
    let mut process = Process::start(&suite, &session, shell(script)).await?;
    process.read_until("up").await?;
    match driver
        .within(SHORT)
        .once()
        .stop(&subject.id, GRACE_MS)
        .await
    {
        // A sandbox need not be able to put off its end.
        Ok(sandbox) if sandbox.state() == SandboxState::Stopped => {
            skip!("a stop takes less than {} ms here", SHORT.as_millis())
        }
        other => refused_with_one_of(other, ENDED)?,
    };
    let stopped = driver.stop(&subject.id, 0).await?;
    ensure!(
        stopped.state() == SandboxState::Stopped,
        "the repeated call answered with {}",
        stopped.state().as_str_name()
    );
    subject.must_be_silent(&session).await
}

async fn unclaimed(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let before = driver.get(&subject.id).await?;
    let session = subject.current();
    let can = suite.capabilities();
    let id = || subject.id.clone();
    let mut tried = 0;
    let mut must_be_refused = |rpc: &str, answer: Result<(), Refused>| {
        tried += 1;
        refused_with(answer, Code::Unimplemented)
            .map(|_| ())
            .map_err(|stop| match stop {
                Stop::Failed { seen, fix } => Stop::Failed {
                    seen: format!("{rpc} is not claimed: {seen}"),
                    fix,
                },
                skipped => skipped,
            })
    };
    if !can.stop_start {
        must_be_refused("stop_start", driver.stop(&id(), 0).await.map(drop))?;
        let start = driver.start_with(subject.start_request()).await;
        must_be_refused("stop_start", start.map(drop))?;
    }
    if !can.pause {
        let request = wire::PauseSandboxRequest {
            sandbox_id: id(),
            ..Default::default()
        };
        must_be_refused("pause", driver.pause_with(request).await.map(drop))?;
        let request = wire::ResumeSandboxRequest {
            sandbox_id: id(),
            ..Default::default()
        };
        must_be_refused("pause", driver.resume_with(request).await.map(drop))?;
    }
    if !can.snapshot {
        let request = wire::SnapshotSandboxRequest {
            sandbox_id: id(),
            snapshot_id: format!("snap-{}", crate::random::word()),
            ..Default::default()
        };
        must_be_refused("snapshot", driver.snapshot_with(request).await.map(drop))?;
    }
    if !can.console {
        let request = wire::ReadConsoleRequest {
            sandbox_id: id(),
            ..Default::default()
        };
        must_be_refused("console", first(driver.read_console(request).await).await)?;
    }
    if !can.stats {
        let request = wire::SandboxStatsRequest {
            sandbox_id: id(),
            interval_ms: 0,
        };
        must_be_refused("stats", first(driver.stats(request).await).await)?;
    }
    if can.execution() == Execution::Supervised {
        let request = wire::RunCommandRequest {
            sandbox_id: id(),
            command_id: format!("cmd-{}", crate::random::word()),
            argv: vec!["true".into()],
            ..Default::default()
        };
        must_be_refused("RunCommand", first(driver.run_command(request).await).await)?;
    }
    if tried == 0 {
        skip!("the driver claims everything");
    }
    subject
        .must_be_untouched(&driver, &before, session.as_ref())
        .await
}

/// How a stream begins: with a message, or with the error that it was refused with.
async fn first<R: Message>(stream: Result<Answers<R>, Refused>) -> Result<(), Refused> {
    stream?.next().await.map(drop)
}
