//! SandboxStats: what is measured, and that it is.

use std::time::{Duration, Instant};

use cofferdam_proto::compute::v1::{SandboxStatsRequest, SandboxStatsResponse};
use tonic::Code;

use crate::answer::refused_with;
use crate::case::{Case, Stop, Verdict, ensure, fail, run, skip};
use crate::driver::Driver;
use crate::needs::Need;
use crate::process::{Process, say, shell};
use crate::remote::{Remote, told};
use crate::suite::Suite;
use crate::wait;

const MEASURE: &str = "read the platform's counters anew for each message, and leave out what it \
    does not count";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.stats.once",
        source: "SandboxStatsRequest",
        says: "Without an interval one message comes, of now, and the stream ends.",
        fix: MEASURE,
        needs: &[Need::Stats],
        run: run!(once),
    },
    Case {
        id: "interactive.stats.repeated",
        source: "SandboxStats",
        says: "With an interval messages come until the call is cancelled, at that interval.",
        fix: MEASURE,
        needs: &[Need::Stats],
        run: run!(repeated),
    },
    Case {
        id: "interactive.stats.measured",
        source: "SandboxStatsResponse",
        says: "What is there was measured: it grows with what the sandbox does. 0 means zero.",
        fix: MEASURE,
        needs: &[Need::Supervised, Need::Stats],
        run: run!(measured),
    },
    Case {
        id: "interactive.stats.refused",
        source: "SandboxStats",
        says: "NOT_FOUND for a sandbox that is not known; an interval below 100 ms is \
               INVALID_ARGUMENT.",
        fix: "look the sandbox up, and check the interval, before the first message",
        needs: &[Need::Stats],
        run: run!(refused),
    },
];

fn request(sandbox_id: &str, interval_ms: u64) -> SandboxStatsRequest {
    SandboxStatsRequest {
        sandbox_id: sandbox_id.to_owned(),
        interval_ms,
    }
}

/// The one message.
pub(super) async fn now(driver: &Driver, id: &str) -> Result<SandboxStatsResponse, Stop> {
    let all = driver.stats(request(id, 0)).await?.all().await?;
    match all.as_slice() {
        [one] => Ok(*one),
        other => fail!("{} messages came without an interval", other.len()),
    }
}

async fn once(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let before = wait::now_ms();
    let stats = now(&driver, &subject.id).await?;
    let after = wait::now_ms();
    // The driver may be another machine with another clock, but not one of another day.
    let slack = 60_000;
    let is_now = (before.saturating_sub(slack)..=after + slack).contains(&stats.time_unix_ms);
    ensure!(
        is_now,
        "time_unix_ms is {}, and now is {after}",
        stats.time_unix_ms
    );
    if let (Some(peak), Some(memory)) = (stats.memory_peak_bytes, stats.memory_bytes) {
        ensure!(
            peak >= memory,
            "the peak of {peak} bytes is below the {memory} bytes of now"
        );
    }
    Ok(())
}

async fn repeated(suite: Suite) -> Verdict {
    const INTERVAL_MS: u64 = 300;
    const MESSAGES: u32 = 6;
    let (driver, subject) = suite.with_sandbox().await?;
    // All of them together: on a busy machine one may be late and the next one on time, which is no
    // fault. Too many are, and no delay on the way makes them look like that.
    let begun = Instant::now();
    let mut stream = driver.stats(request(&subject.id, INTERVAL_MS)).await?;
    let mut times = Vec::new();
    for count in 0..MESSAGES {
        match stream.next().await? {
            Some(stats) => times.push(stats.time_unix_ms),
            None => fail!("the stream ended by itself after {count} messages"),
        }
    }
    let took = begun.elapsed();
    let due = Duration::from_millis(INTERVAL_MS) * (MESSAGES - 1);
    ensure!(
        took >= due * 9 / 10,
        "{MESSAGES} messages came within {} ms, and one each {INTERVAL_MS} ms was asked for",
        took.as_millis()
    );
    ensure!(
        times.first() < times.last(),
        "each of {MESSAGES} messages tells the same time: {times:?}"
    );
    Ok(())
}

/// Works, takes memory, starts processes.
const BUSY: &str = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; \
    head -c 8000000 /dev/zero > file; sleep 100 & sleep 100 & sleep 100 & echo ready; wait";

async fn measured(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    say(&suite, &session, ":").await?;
    let before = now(&driver, &subject.id).await?;
    let mut process = Process::start(&suite, &session, shell(BUSY)).await?;
    process.read_until("ready").await?;
    let after = now(&driver, &subject.id).await?;
    let killed = Remote::new(&suite, &session).kill(&process.id).await;
    killed.map_err(|status| told("KillProcess", &status))?;
    let grown = [
        ("cpu_us", before.cpu_us, after.cpu_us, 10_000),
        ("pids", before.pids, after.pids, 4),
    ];
    let measured = grown.iter().filter(|one| one.2.is_some()).count();
    for (name, before, after, least) in grown {
        if let (Some(before), Some(after)) = (before, after) {
            ensure!(
                after >= before + least,
                "{name} was {before} before some work and {after} after it"
            );
        }
    }
    if let Some(memory) = after.memory_bytes {
        ensure!(
            memory > 0,
            "a sandbox with processes uses 0 bytes of memory"
        );
    }
    if measured == 0 && after.memory_bytes.is_none() {
        skip!("the driver claims stats, and measures neither cpu, memory nor pids here");
    }
    Ok(())
}

async fn refused(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    for (id, interval_ms, code) in [
        ("conf-nobody", 0, Code::NotFound),
        (subject.id.as_str(), 99, Code::InvalidArgument),
    ] {
        let answer = match driver.stats(request(id, interval_ms)).await {
            Ok(mut stream) => stream.next().await,
            Err(refused) => Err(refused),
        };
        refused_with(answer, code)?;
    }
    Ok(())
}
