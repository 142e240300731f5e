//! Signals, and the end of whole trees, over the byte stream.

use cofferdam_proto::supervisor::v1::process_request::Request;
use cofferdam_proto::supervisor::v1::signal_process_request::Scope;
use tonic::Code;

use crate::case::{Case, Verdict, ensure, run};
use crate::needs::Need;
use crate::process::{Process, program, say, shell};
use crate::remote::{Remote, must_be, told};
use crate::suite::Suite;

const SIGUSR1: u32 = 10;
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

const MAY_SIGNAL: &str = "leave the supervisor the right to signal the workload (CAP_KILL in the \
    sandbox's own user namespace, or the same user): docs/supervisor.md";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.signals.caught",
        source: "ProcessRequest.signal, SignalProcess",
        says: "A signal reaches a process that handles it.",
        fix: MAY_SIGNAL,
        needs: &[Need::Supervised],
        run: run!(caught),
    },
    Case {
        id: "interactive.signals.ended-by",
        source: "ProcessExited",
        says: "A process that a signal ended says which; a signal to what has ended is OK.",
        fix: "leave the answer to the supervisor: a wrapper that answers 128+n hides it",
        needs: &[Need::Supervised],
        run: run!(ended_by),
    },
    Case {
        id: "interactive.signals.tree",
        source: "KillProcess",
        says: "Ends the whole tree of a process: also descendants that ignore signals or lost their \
               parent.",
        fix: "give the sandbox the /proc of its own pid namespace, and the supervisor the right to \
              signal the workload",
        needs: &[Need::Supervised],
        run: run!(tree),
    },
    Case {
        id: "interactive.signals.orphans",
        source: "docs/supervisor",
        says: "Children that lost their parent are reaped, and stay alive after a normal exit.",
        fix: "run the supervisor as the first process of a pid namespace, or below an init that \
              leaves it its orphans",
        needs: &[Need::Supervised],
        run: run!(orphans),
    },
];

/// Waits for signals, and handles one.
const HANDLES: &str = "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.1; done";

async fn caught(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let remote = Remote::new(&suite, &session);
    for over_the_stream in [true, false] {
        let mut process = Process::start(&suite, &session, shell(HANDLES)).await?;
        process.read_until("ready").await?;
        if over_the_stream {
            process.send(Request::Signal(SIGUSR1)).await?;
        } else {
            let sent = remote.signal(&process.id, SIGUSR1, Scope::Process).await;
            sent.map_err(|status| told("SignalProcess", &status))?;
        }
        process.finish().await?;
        let (said, ending) = (process.output.text(), process.output.ending());
        ensure!(
            said.contains("caught") && process.output.code() == Some(9),
            "after SIGUSR1: {ending}; {said:?}"
        );
    }
    Ok(())
}

async fn ended_by(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let remote = Remote::new(&suite, &session);
    for signal in [SIGTERM, SIGKILL] {
        let sleeping = program(&["sleep", "1000"]);
        let mut process = Process::start(&suite, &session, sleeping).await?;
        let sent = remote.signal(&process.id, signal, Scope::Group).await;
        sent.map_err(|status| told("SignalProcess", &status))?;
        process.finish().await?;
        ensure!(
            process.output.signal() == Some(signal),
            "after signal {signal} it ended with {}",
            process.output.ending()
        );
        let again = remote.signal(&process.id, signal, Scope::Group).await;
        again.map_err(|status| told("a signal to what has ended", &status))?;
    }
    let nobody = remote.signal("p-nobody", SIGTERM, Scope::Group).await;
    must_be("a signal to nobody", nobody, Code::NotFound)
}

/// One that ignores signals, and one that lost its parent and ignores them, too.
const STUBBORN: &str = "trap '' TERM INT HUP; \
    (sh -c 'echo $$ >> pids; while :; do sleep 1; done' &); \
    sh -c 'echo $$ >> pids; while :; do sleep 1; done' & \
    echo $$ >> pids; until [ $(wc -l < pids) = 3 ]; do sleep 0.1; done; echo ready; wait";

const WHO_LIVES: &str = "for pid in $(cat pids); do kill -0 $pid 2>/dev/null && echo $pid; done; :";

async fn tree(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let mut process = Process::start(&suite, &session, shell(STUBBORN)).await?;
    process.read_until("ready").await?;
    let before = say(&suite, &session, WHO_LIVES).await?;
    ensure!(
        before.lines().count() == 3,
        "of three processes that were started these live: {before:?}"
    );
    let killed = Remote::new(&suite, &session).kill(&process.id).await;
    killed.map_err(|status| told("KillProcess", &status))?;
    let after = say(&suite, &session, WHO_LIVES).await?;
    ensure!(
        after.is_empty(),
        "KillProcess has answered, and these live on: {after:?}"
    );
    process.finish().await?;
    ensure!(
        process.output.signal() == Some(SIGKILL),
        "it ended with {}",
        process.output.ending()
    );
    Ok(())
}

async fn orphans(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let script = "(sh -c 'echo $$ > long; exec sleep 1000' > /dev/null 2>&1 &); \
        (sh -c 'echo $$ > short' > /dev/null 2>&1 &); \
        until [ -s long ] && [ -s short ]; do sleep 0.1; done; cat long short";
    let pids = say(&suite, &session, script).await?;
    let pids: Vec<&str> = pids.split_whitespace().collect();
    let [long, short] = pids[..] else {
        crate::case::fail!("two processes were started, and told of {pids:?}");
    };
    let alive = say(&suite, &session, &format!("kill -0 {long} && echo yes; :")).await?;
    ensure!(
        alive == "yes",
        "a process in the background did not outlive its command"
    );
    // What is not reaped is still there for `kill -0`.
    let gone = format!(
        "i=0; while kill -0 {short} 2>/dev/null && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; \
         kill -0 {short} 2>/dev/null && echo there; :"
    );
    let there = say(&suite, &session, &gone).await?;
    ensure!(
        there.is_empty(),
        "process {short} has ended, and nobody reaps it"
    );
    Ok(())
}
