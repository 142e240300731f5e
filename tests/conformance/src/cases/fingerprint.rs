//! Fingerprint: what the platform is, at once and on change.

use std::time::Duration;

use cofferdam_proto::compute::v1::{
    CheckResult, FingerprintRequest, FingerprintResponse, Health, Limits,
};
use tokio::time::Instant;

use crate::answer::{How, Refused};
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::driver::Answers;
use crate::suite::Suite;

/// A message that needs nothing but to be sent, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(10);

pub(super) const CASES: &[Case] = &[
    Case {
        id: "core.fingerprint.at-once",
        source: "Fingerprint",
        says: "The first message comes at once, on every stream.",
        fix: "send what is known when the stream opens, and look anew behind it",
        needs: &[],
        run: run!(at_once),
    },
    Case {
        id: "core.fingerprint.explained",
        source: "FingerprintResponse",
        says: "Health is set; what is not healthy has a reason and an exact fix; every check has an \
               id of [a-z0-9_] and a result, and a fix if it failed.",
        fix: "fill in `reason` and `fix` wherever something is wrong, and only there",
        needs: &[],
        run: run!(explained),
    },
    Case {
        id: "core.fingerprint.limits",
        source: "FingerprintResponse.limits",
        says: "States what of `Capabilities.limits` holds now.",
        fix: "set only limits that the capabilities claim as well",
        needs: &[],
        run: run!(limits),
    },
    Case {
        id: "core.fingerprint.unhurried",
        source: "Fingerprint",
        says: "A message whenever something changes, at most one a second.",
        fix: "hold a change back until a second after the last message",
        needs: &[],
        run: run!(unhurried),
    },
];

async fn one(suite: &Suite) -> Result<FingerprintResponse, Stop> {
    let driver = suite.driver().await?;
    let mut stream = driver.fingerprint(FingerprintRequest {}).await?;
    match stream.next().await? {
        Some(print) => Ok(print),
        None => fail!("the stream ended without a message"),
    }
}

async fn at_once(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let mut first = driver.fingerprint(FingerprintRequest {}).await?;
    let mut second = driver.fingerprint(FingerprintRequest {}).await?;
    for stream in [&mut first, &mut second] {
        ensure!(
            stream.next_within(AT_ONCE).await?.is_some(),
            "the stream ended without a message"
        );
    }
    Ok(())
}

async fn explained(suite: Suite) -> Verdict {
    let print = one(&suite).await?;
    let health = print.health();
    ensure!(health != Health::Unspecified, "health is {}", print.health);
    let is_healthy = health == Health::Healthy;
    let name = health.as_str_name();
    ensure!(
        is_healthy == print.reason.is_empty(),
        "{name}, and the reason is {:?}",
        print.reason
    );
    ensure!(
        is_healthy || !print.fix.is_empty(),
        "{name} without a fix: {:?}",
        print.reason
    );
    for check in &print.checks {
        let id = &check.id;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        ensure!(
            !id.is_empty() && id.bytes().all(plain),
            "a check is called {id:?}"
        );
        ensure!(
            check.result() != CheckResult::Unspecified,
            "check {id} has no result"
        );
        ensure!(
            check.result() != CheckResult::Failed || !check.fix.is_empty(),
            "check {id} failed, and has no fix"
        );
    }
    Ok(())
}

async fn limits(suite: Suite) -> Verdict {
    let print = one(&suite).await?;
    let now = print.limits.unwrap_or_default();
    let claimed = suite.capabilities().limits.unwrap_or_default();
    let each = |limits: Limits| [limits.memory, limits.cpu, limits.pids, limits.disk];
    let names = ["memory", "cpu", "pids", "disk"];
    for ((name, now), claimed) in names.into_iter().zip(each(now)).zip(each(claimed)) {
        ensure!(
            claimed || !now,
            "limits.{name} holds now, and the capabilities do not claim it"
        );
    }
    Ok(())
}

async fn unhurried(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let stream = driver.fingerprint(FingerprintRequest {}).await?;
    let changes = async {
        let subjects = suite.several(&driver, 3).await?;
        for subject in &subjects {
            driver.delete(&subject.id).await?;
        }
        Ok::<_, Stop>(())
    };
    let begun = Instant::now();
    let (changed, count) = tokio::join!(changes, count(stream, Duration::from_millis(2500)));
    changed?;
    // However late they come here: between each two there was a second.
    let (count, waited) = (count?, begun.elapsed().as_secs());
    ensure!(
        count <= waited + 2,
        "{count} messages came within {waited} s"
    );
    Ok(())
}

/// How many messages come in so much time.
async fn count(mut stream: Answers<FingerprintResponse>, time: Duration) -> Result<u64, Stop> {
    let end = Instant::now() + time;
    let mut count = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match stream.next_within(left).await {
            Ok(Some(_)) => count += 1,
            Ok(None) => fail!("the stream ended by itself"),
            Err(Refused {
                how: How::Silent(_),
                ..
            }) => return Ok(count),
            Err(refused) => return Err(refused.into()),
        }
    }
}
