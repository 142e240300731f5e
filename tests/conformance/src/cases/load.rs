//! Much at once, over one byte stream.

use cofferdam_proto::supervisor::v1::ProcessSpec;
use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout_at};

use crate::callback::Session;
use crate::case::{Case, Stop, Verdict, ensure, fail, run};
use crate::needs::Need;
use crate::process::{Process, say, shell};
use crate::remote::{Remote, sha256, told};
use crate::suite::Suite;
use crate::wait::Looks;

const NO_BOUND: &str = "carry the stream as it is: no bound on its length or on how much is under \
    way, and no order between its two ways";

/// With their shells and helpers well below the pids limit of the suite's sandboxes.
const MANY: usize = 24;

/// More than a connection with the usual windows bears.
const UNREAD: usize = 12;

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.load.many",
        source: "Supervisor",
        says: "Many commands run side by side, each with its own input, output and end.",
        fix: NO_BOUND,
        needs: &[Need::Supervised],
        run: run!(many),
    },
    Case {
        id: "interactive.load.large-output",
        source: "OutputData",
        says: "Output comes whole and in order, however much it is.",
        fix: NO_BOUND,
        needs: &[Need::Supervised],
        run: run!(large_output),
    },
    Case {
        id: "interactive.load.full-spool",
        source: "Process",
        says: "When nobody acknowledges its output a process blocks, and nothing of it is dropped.",
        fix: "hand over the supervisor of the handshake, and no other",
        needs: &[Need::Supervised],
        run: run!(full_spool),
    },
    Case {
        id: "interactive.load.unread",
        source: "Ping",
        says: "Output that nobody reads keeps neither a Ping nor another command waiting.",
        fix: NO_BOUND,
        needs: &[Need::Supervised],
        run: run!(unread),
    },
];

async fn many(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let each = |number: usize| conversation(&suite, &session, number);
    let mut waiting = try_join_all((0..MANY).map(each)).await?;
    // All of them run now, and each waits for its own line.
    for (number, process) in waiting.iter_mut().enumerate() {
        let line = format!("line {number}\n");
        process.stdin(0, line.clone()).await?;
        process.stdin_eof(line.len() as u64).await?;
    }
    try_join_all(waiting.iter_mut().map(Process::finish)).await?;
    for (number, process) in waiting.iter().enumerate() {
        let (said, ending) = (process.output.text(), process.output.ending());
        let code = u32::try_from(number + 1).unwrap_or_default();
        ensure!(
            said == format!("here {number}\nline {number}\n")
                && process.output.code() == Some(code),
            "command {number} of {MANY}: {ending}; {said:?}"
        );
    }
    Ok(())
}

async fn conversation(suite: &Suite, session: &Session, number: usize) -> Result<Process, Stop> {
    let script = format!(
        "echo here {number}; read line; echo $line; exit {}",
        number + 1
    );
    let spec = ProcessSpec {
        stdin: true,
        ..shell(&script)
    };
    let mut process = Process::start(suite, session, spec).await?;
    process.read_until(&format!("here {number}")).await?;
    Ok(process)
}

const LINES: u32 = 1_500_000;

async fn large_output(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let mut process = Process::start(&suite, &session, shell(&format!("seq 1 {LINES}"))).await?;
    process.finish().await?;
    let lines = (1..=LINES).map(|number| format!("{number}\n"));
    let expected = lines.collect::<String>().into_bytes();
    ensure!(
        sha256(&process.output.stdout) == sha256(&expected),
        "of {} bytes {} came, and not the same ones",
        expected.len(),
        process.output.stdout.len()
    );
    Ok(())
}

async fn full_spool(suite: Suite) -> Verdict {
    const BYTES: u64 = 3 << 20;
    let (_driver, _subject, session) = suite.with_session().await?;
    let spec = ProcessSpec {
        spool_bytes: 128 * 1024,
        ..shell(&format!("head -c {BYTES} /dev/zero; echo end >&2"))
    };
    let mut process = Process::start(&suite, &session, spec).await?;
    let remote = Remote::new(&suite, &session);
    let mut looks = Looks::within(suite.patience());
    let mut before = 0;
    loop {
        ensure!(looks.again().await, "its output never comes to a halt");
        let bytes = output_bytes(&remote, &process.id).await?;
        // Twice the same: it waits.
        if bytes == before && bytes > 0 {
            break;
        }
        before = bytes;
    }
    ensure!(
        before < BYTES,
        "all of its {BYTES} bytes were taken, and nobody read any of them"
    );
    process.finish().await?;
    ensure!(
        process.output.stdout.len() as u64 == BYTES && process.output.stderr == b"end\n",
        "{} of {BYTES} bytes came; {}",
        process.output.stdout.len(),
        process.output.ending()
    );
    Ok(())
}

async fn output_bytes(remote: &Remote, id: &str) -> Result<u64, Stop> {
    let processes = remote.processes().await;
    let processes = processes.map_err(|status| told("ListProcesses", &status))?;
    match processes.iter().find(|one| one.process_id == id) {
        Some(found) => Ok(found.output_bytes),
        None => fail!("a process that runs is not in ListProcesses"),
    }
}

async fn unread(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let flood = |_| Process::start(&suite, &session, shell("yes"));
    let flooding = try_join_all((0..UNREAD).map(flood)).await?;
    let remote = Remote::new(&suite, &session);
    let end = Instant::now() + suite.patience();
    let work = async {
        for _ in 0..3 {
            session.must_answer().await?;
            let said = say(&suite, &session, "echo here").await?;
            ensure!(said == "here", "another command said {said:?}");
        }
        for process in &flooding {
            let killed = remote.kill(&process.id).await;
            killed.map_err(|status| told("KillProcess of one that floods", &status))?;
        }
        Ok(())
    };
    match timeout_at(end, work).await {
        Ok(verdict) => verdict,
        Err(_) => fail!(
            "{UNREAD} commands whose output nobody reads keep the whole stream waiting; last seen {}",
            suite.last_step()
        ),
    }
}
