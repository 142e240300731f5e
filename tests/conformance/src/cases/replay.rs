//! The byte stream when it is cut, or torn away with its gateway: processes go on, and every byte of
//! output comes once, at its offset.

use std::time::Duration;

use crate::case::{Case, Verdict, ensure, run};
use crate::needs::Need;
use crate::process::{Process, say, sh, shell};
use crate::suite::Suite;
use crate::{random, wait};

const LIVES_ON: &str = "let the supervisor live when its stream ends, and let it connect again: \
    mount the callback *directory*, or relay every new connection: docs/supervisor.md";

/// Several times what fits into any buffer on the way.
const LONG: &str = "seq 1 400000; exit 5";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.replay.cut",
        source: "Process",
        says: "A cut of the stream harms no process: after it every byte of output is there once, \
               at its offset, and the exit code, too.",
        fix: LIVES_ON,
        needs: &[Need::Supervised],
        run: run!(cut),
    },
    Case {
        id: "interactive.replay.ended-meanwhile",
        source: "Process",
        says: "What ends while nobody is connected still tells its output and how it ended.",
        fix: LIVES_ON,
        needs: &[Need::Supervised],
        run: run!(ended_meanwhile),
    },
    Case {
        id: "interactive.replay.same-start",
        source: "Process, StartProcess",
        says: "The same process id again attaches to what the first start started.",
        fix: "hand over the supervisor of the handshake, and no other",
        needs: &[Need::Supervised],
        run: run!(same_start),
    },
    Case {
        id: "interactive.replay.idle",
        source: "docs/supervisor",
        says: "The stream is not ended because nothing is said on it for a while.",
        fix: "set no idle timeout on whatever carries the stream",
        needs: &[Need::Supervised],
        run: run!(idle),
    },
];

/// What `LONG` writes.
fn long_output() -> Vec<u8> {
    let lines = (1..=400_000u32).map(|number| format!("{number}\n"));
    lines.collect::<String>().into_bytes()
}

async fn cut(suite: Suite) -> Verdict {
    let (_driver, subject, mut session) = suite.with_session().await?;
    let mut process = Process::start(&suite, &session, shell(LONG)).await?;
    let expected = long_output();
    let mut all = Vec::new();
    for part in [1, 2, 3] {
        let until = expected.len() * part / 4;
        while process.output.end() < until as u64 {
            if !process.step().await? {
                break;
            }
        }
        let (id, at) = (process.id.clone(), process.output.end());
        all.append(&mut process.output.all);
        session = subject.cut_and_return(&session).await?;
        process = Process::attach(&suite, &session, &id, at).await?;
    }
    process.finish().await?;
    all.append(&mut process.output.all);
    must_be_same(&all, &expected)?;
    ensure!(
        process.output.code() == Some(5),
        "it ended with {}, and exit code 5 was expected",
        process.output.ending()
    );
    Ok(())
}

fn must_be_same(seen: &[u8], expected: &[u8]) -> Verdict {
    let pairs = seen.iter().zip(expected);
    let same = pairs.take_while(|(one, other)| one == other).count();
    ensure!(
        seen == expected,
        "{} bytes came of {}, and they differ from byte {same} on",
        seen.len(),
        expected.len()
    );
    Ok(())
}

async fn ended_meanwhile(suite: Suite) -> Verdict {
    let (_driver, subject, session) = suite.with_session().await?;
    let script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; sleep 0.3; echo done; exit 6";
    let mut process = Process::start(&suite, &session, shell(script)).await?;
    process.read_until("begun").await?;
    let (id, at) = (process.id.clone(), process.output.end());
    say(&suite, &session, "touch go").await?;
    subject.callback()?.close();
    session.cut();
    session.ends_within(suite.patience()).await;
    // Longer than it still has to do.
    wait::pause(Duration::from_millis(600)).await;
    subject.callback()?.listen()?;
    let session = subject.same_boot(&session).await?;
    let mut again = Process::attach(&suite, &session, &id, at).await?;
    again.finish().await?;
    let (said, ending) = (again.output.text(), again.output.ending());
    ensure!(
        said == "done\n" && again.output.code() == Some(6),
        "what ended while nobody was there: {ending}; {said:?}"
    );
    Ok(())
}

async fn same_start(suite: Suite) -> Verdict {
    let (_driver, subject, session) = suite.with_session().await?;
    let id = format!("p-{}", random::word());
    let spec = || shell("echo run >> runs; echo hello; exit 4");
    let mut first = Process::start_as(&suite, &session, &id, spec(), 0).await?;
    first.finish().await?;
    let session = subject.cut_and_return(&session).await?;
    // The answer was lost, as far as this gateway knows; nothing was forgotten.
    let at = first.output.end();
    let mut again = Process::start_as(&suite, &session, &id, spec(), at).await?;
    ensure!(
        again.started.existed,
        "the same id again started another process"
    );
    again.finish().await?;
    ensure!(
        again.output.code() == Some(4) && again.output.all.is_empty(),
        "the same id again, with all output stored: {}; {:?}",
        again.output.ending(),
        again.output.text()
    );
    let runs = say(&suite, &session, "wc -l < runs").await?;
    ensure!(runs == "1", "the program has run {runs} times");
    Ok(())
}

/// More than a hasty relay has patience for, and less than a run of the suite may take.
const SILENCE: Duration = Duration::from_secs(3);

async fn idle(suite: Suite) -> Verdict {
    let (_driver, subject, session) = suite.with_session().await?;
    ensure!(
        !session.ends_within(SILENCE).await,
        "the stream ended by itself"
    );
    let current = subject.session().await?;
    let same = sh(&suite, &current, "exit 0").await?;
    ensure!(
        same.code() == Some(0),
        "after a silence a command ended with {}",
        same.ending()
    );
    Ok(())
}
