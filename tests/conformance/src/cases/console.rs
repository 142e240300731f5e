//! ReadConsole: why did it never come up.

use std::time::Duration;

use cofferdam_proto::compute::v1::{ReadConsoleRequest, ReadConsoleResponse};
use tonic::Code;

use crate::answer::{How, Refused, refused_with};
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::driver::{Answers, Driver};
use crate::needs::Need;
use crate::suite::Suite;
use crate::wait::Looks;

const STDERR: &str = "keep the supervisor's stderr, the last 64 KiB of it at least, until the \
    sandbox is deleted";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.console.kept",
        source: "ReadConsole",
        says: "The platform's log of a sandbox, the supervisor's own stderr in it; without `follow` \
               the stream ends with what is kept.",
        fix: STDERR,
        needs: &[Need::Supervised, Need::Console],
        run: run!(kept),
    },
    Case {
        id: "interactive.console.tail",
        source: "ReadConsoleRequest.tail_bytes",
        says: "The last so many bytes; 0: all that is kept.",
        fix: "count from the end of what is kept",
        needs: &[Need::Supervised, Need::Console],
        run: run!(tail),
    },
    Case {
        id: "interactive.console.follow",
        source: "ReadConsoleRequest.follow",
        says: "With `follow` the stream goes on with what comes later.",
        fix: "wake the readers when something is added",
        needs: &[Need::Supervised, Need::Console],
        run: run!(follow),
    },
    Case {
        id: "interactive.console.unknown",
        source: "ReadConsole",
        says: "NOT_FOUND for a sandbox that is not known.",
        fix: "look the sandbox up first, also when nothing would be read",
        needs: &[Need::Console],
        run: run!(unknown),
    },
];

fn request(sandbox_id: &str, tail_bytes: u64, follow: bool) -> ReadConsoleRequest {
    ReadConsoleRequest {
        sandbox_id: sandbox_id.to_owned(),
        tail_bytes,
        follow,
    }
}

/// All that is kept, or its tail.
async fn read(driver: &Driver, id: &str, tail_bytes: u64) -> Result<Vec<u8>, Stop> {
    let stream = driver.read_console(request(id, tail_bytes, false)).await?;
    let parts = stream.all().await.map_err(|refused| match refused.how {
        How::Silent(_) => Stop::failed("ReadConsole without `follow` does not end"),
        _ => refused.into(),
    })?;
    Ok(parts.into_iter().flat_map(|part| part.data).collect())
}

/// What the supervisor has said about its session: it says something of each.
async fn said(suite: &Suite, driver: &Driver, id: &str) -> Result<Vec<u8>, Stop> {
    let mut looks = Looks::within(suite.patience() / 3);
    while looks.again().await {
        let bytes = read(driver, id, 0).await?;
        if !bytes.is_empty() {
            return Ok(bytes);
        }
    }
    fail!("a supervisor has told of its session on stderr, and the console is empty")
}

async fn kept(suite: Suite) -> Verdict {
    let (driver, subject, _session) = suite.with_session().await?;
    said(&suite, &driver, &subject.id).await?;
    Ok(())
}

async fn tail(suite: Suite) -> Verdict {
    let (driver, subject, _session) = suite.with_session().await?;
    said(&suite, &driver, &subject.id).await?;
    let mut looks = Looks::within(suite.patience() / 3);
    while looks.again().await {
        let all = read(&driver, &subject.id, 0).await?;
        let tail = read(&driver, &subject.id, 7).await?;
        if all != read(&driver, &subject.id, 0).await? {
            // Something was added meanwhile.
            continue;
        }
        let expected = &all[all.len().saturating_sub(7)..];
        ensure!(
            tail == expected,
            "the last 7 bytes were {tail:?}, and the whole ends with {expected:?}"
        );
        return Ok(());
    }
    fail!("the console of an idle sandbox grows all the time")
}

async fn follow(suite: Suite) -> Verdict {
    let (driver, subject, session) = suite.with_session().await?;
    let before = said(&suite, &driver, &subject.id).await?;
    let mut stream = driver.read_console(request(&subject.id, 0, true)).await?;
    let mut seen = 0;
    while seen < before.len() {
        seen += next(&mut stream, suite.patience()).await?;
    }
    // It says that this session has ended, and that another has begun.
    subject.cut_and_return(&session).await?;
    next(&mut stream, suite.patience()).await?;
    Ok(())
}

async fn next(
    stream: &mut Answers<ReadConsoleResponse>,
    patience: Duration,
) -> Result<usize, Stop> {
    match stream.next_within(patience).await {
        Ok(Some(part)) => Ok(part.data.len()),
        Ok(None) => Err(Stop::failed("the followed console ended by itself")),
        Err(Refused {
            how: How::Silent(_),
            ..
        }) => Err(Stop::failed(
            "nothing came on the followed console, though the supervisor said something",
        )),
        Err(refused) => Err(refused.into()),
    }
}

async fn unknown(suite: Suite) -> Verdict {
    let driver = suite.driver().await?;
    let stream = match driver.read_console(request("conf-nobody", 0, false)).await {
        Ok(stream) => stream.all().await,
        Err(refused) => Err(refused),
    };
    refused_with(stream, Code::NotFound)?;
    Ok(())
}
