//! Standard input, over the byte stream.

use std::time::Duration;

use cofferdam_proto::supervisor::v1::ProcessSpec;
use tokio::time::timeout;

use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::needs::Need;
use crate::process::{Process, run as run_program, say, shell};
use crate::random;
use crate::remote::sha256;
use crate::suite::Suite;

const BOTH_WAYS: &str = "carry the stream both ways at the same time, without waiting for a full \
    buffer and without a bound on how much it carries: docs/supervisor.md";

/// What a pipe holds, with room to spare.
const PIPE_BYTES: u64 = 1 << 20;

/// Nothing has been taken for so long: nothing more will be.
const STALL: Duration = Duration::from_millis(700);

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.stdin.eof",
        source: "ProcessSpec, StdinEof",
        says: "Stdin stays open until `stdin_eof`, and then the process sees its end.",
        fix: BOTH_WAYS,
        needs: &[Need::Supervised],
        run: run!(eof),
    },
    Case {
        id: "interactive.stdin.none",
        source: "ProcessSpec",
        says: "Without `stdin` it is /dev/null.",
        fix: "give the sandbox a /dev with a null device that anybody may read",
        needs: &[Need::Supervised],
        run: run!(none),
    },
    Case {
        id: "interactive.stdin.large",
        source: "StdinData",
        says: "Every byte arrives, once and in order, however much it is.",
        fix: BOTH_WAYS,
        needs: &[Need::Supervised],
        run: run!(large),
    },
    Case {
        id: "interactive.stdin.backpressure",
        source: "Process",
        says: "What the process does not read is not taken; nothing is lost, and nobody else waits.",
        fix: BOTH_WAYS,
        needs: &[Need::Supervised],
        run: run!(backpressure),
    },
    Case {
        id: "interactive.stdin.resent",
        source: "StdinData",
        says: "After a cut stream stdin stays open, and what is sent again is not doubled.",
        fix: "let the supervisor live when its stream ends: it connects again by itself",
        needs: &[Need::Supervised],
        run: run!(resent),
    },
];

fn with_stdin(script: &str) -> ProcessSpec {
    ProcessSpec {
        stdin: true,
        ..shell(script)
    }
}

async fn eof(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let script = "read line; echo got $line; cat; echo end";
    let mut process = Process::start(&suite, &session, with_stdin(script)).await?;
    process.stdin(0, "one\n").await?;
    // Its answer comes while stdin is open, or a conversation is not possible.
    process.read_until("got one").await?;
    process.stdin(4, "two").await?;
    process.read_until("two").await?;
    ensure!(
        !process.output.text().contains("end"),
        "stdin has ended before `stdin_eof`"
    );
    process.stdin_eof(7).await?;
    process.finish().await?;
    let said = process.output.text();
    ensure!(said == "got one\ntwoend\n", "it said {said:?}");
    Ok(())
}

async fn none(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let output = run_program(&suite, &session, shell("cat; echo end")).await?;
    ensure!(
        output.text() == "end\n" && output.code() == Some(0),
        "`cat` without stdin: {}; {:?}",
        output.ending(),
        output.text()
    );
    Ok(())
}

async fn large(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let data = random::long(3_000_017);
    let mut process = Process::start(&suite, &session, with_stdin("sha256sum")).await?;
    process.pour(&data).await?;
    process.finish().await?;
    must_be_digest(&process, &data)
}

fn must_be_digest(process: &Process, data: &[u8]) -> Verdict {
    let said = process.output.text();
    let digest = hex::encode(sha256(data));
    ensure!(
        said.contains(&digest),
        "the {} bytes that were sent arrived as others: {}; sha256sum said {said:?}",
        data.len(),
        process.output.ending()
    );
    Ok(())
}

async fn backpressure(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let script = "while [ ! -e go ]; do sleep 0.1; done; sha256sum";
    let mut process = Process::start(&suite, &session, with_stdin(script)).await?;
    let data = random::long(4_000_000);
    let stalled = timeout(suite.patience(), pour_until_stall(&mut process, &data)).await;
    let taken = match stalled {
        Ok(taken) => taken?,
        Err(_) => fail!("stdin is taken without end, and nobody reads it"),
    };
    ensure!(
        taken <= PIPE_BYTES,
        "{taken} bytes of stdin were taken from a process that reads none of it"
    );
    session.must_answer().await?;
    say(&suite, &session, "touch go").await?;
    process.pour(&data).await?;
    process.finish().await?;
    must_be_digest(&process, &data)
}

/// Sends as much as may be under way until nothing is taken any more; how much was.
async fn pour_until_stall(process: &mut Process, data: &[u8]) -> Result<u64, Stop> {
    let whole = data.len() as u64;
    loop {
        let taken = process.output.stdin_taken;
        if taken >= whole {
            return Ok(taken);
        }
        process.fill(data).await?;
        match timeout(STALL, process.step()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => fail!("the process ended: {}", process.output.ending()),
            Ok(Err(stop)) => return Err(stop),
            Err(_) => return Ok(taken),
        }
    }
}

async fn resent(suite: Suite) -> Verdict {
    let (_driver, subject, session) = suite.with_session().await?;
    let script = "read line; echo got $line; cat; echo end";
    let mut process = Process::start(&suite, &session, with_stdin(script)).await?;
    process.stdin(0, "one\ntwo").await?;
    process.read_until("two").await?;
    let (id, at) = (process.id.clone(), process.output.end());
    let session = subject.cut_and_return(&session).await?;
    let mut again = Process::attach(&suite, &session, &id, at).await?;
    ensure!(
        again.started.existed && again.started.stdin_offset == 7,
        "after 7 bytes of stdin and a cut: {:?}",
        again.started
    );
    again.stdin(0, "one\ntwothree").await?;
    again.stdin_eof(12).await?;
    again.finish().await?;
    let said = again.output.text();
    ensure!(said == "threeend\n", "after the cut it said {said:?}");
    Ok(())
}
