//! Terminals, over the byte stream.

use cofferdam_proto::supervisor::v1::process_request::Request;
use cofferdam_proto::supervisor::v1::{ProcessSpec, PtySpec, WindowSize};

use crate::callback::Session;
use crate::case::{Case, Stop, Verdict, ensure, run};
use crate::needs::Need;
use crate::process::{Process, run as run_program, shell};
use crate::suite::Suite;

const DEVPTS: &str = "give the sandbox a /dev/pts of its own (newinstance, ptmxmode=0666) and \
    /dev/ptmx: docs/supervisor.md";

const PROMPT: &str = "hand on small pieces at once: a terminal's user waits for each of them";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.pty.terminal",
        source: "PtySpec",
        says: "With a PTY stdin, stdout and stderr are one terminal of the asked size and type.",
        fix: DEVPTS,
        needs: &[Need::Supervised],
        run: run!(terminal),
    },
    Case {
        id: "interactive.pty.echo",
        source: "ProcessSpec.pty",
        says: "What is typed is echoed and answered, piece by piece.",
        fix: PROMPT,
        needs: &[Need::Supervised],
        run: run!(echo),
    },
    Case {
        id: "interactive.pty.resize",
        source: "WindowSize",
        says: "A resize reaches the terminal while a program runs in it.",
        fix: DEVPTS,
        needs: &[Need::Supervised],
        run: run!(resize),
    },
    Case {
        id: "interactive.pty.interrupt",
        source: "ProcessSpec.pty",
        says: "Ctrl-C interrupts the foreground program: the terminal is its controlling one.",
        fix: DEVPTS,
        needs: &[Need::Supervised],
        run: run!(interrupt),
    },
    Case {
        id: "interactive.pty.eof",
        source: "StdinEof",
        says: "Ctrl-D, and `stdin_eof` in its place, end the input and not the terminal.",
        fix: DEVPTS,
        needs: &[Need::Supervised],
        run: run!(eof),
    },
];

fn in_terminal(script: &str) -> ProcessSpec {
    ProcessSpec {
        stdin: true,
        pty: Some(PtySpec {
            rows: 37,
            columns: 101,
            term: "vt100".to_owned(),
        }),
        ..shell(script)
    }
}

async fn start(suite: &Suite, script: &str) -> Result<(Session, Process), Stop> {
    let (_driver, _subject, session) = suite.with_session().await?;
    let process = Process::start(suite, &session, in_terminal(script)).await?;
    Ok((session, process))
}

async fn terminal(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let script = "test -t 0 && test -t 1 && test -t 2 && echo a terminal; stty size; echo $TERM; \
        echo err >&2";
    let output = run_program(&suite, &session, in_terminal(script)).await?;
    let said = output.text();
    ensure!(
        said == "a terminal\r\n37 101\r\nvt100\r\nerr\r\n",
        "in a terminal of 37 rows and 101 columns, a vt100, it said {said:?}"
    );
    ensure!(
        output.stderr.is_empty(),
        "a terminal has one stream, and stderr came apart"
    );
    let script = "test -t 0 || test -t 1 || test -t 2 || echo none";
    let output = run_program(&suite, &session, shell(script)).await?;
    ensure!(
        output.text() == "none\n",
        "there is a terminal, and nobody asked for one"
    );
    Ok(())
}

async fn echo(suite: Suite) -> Verdict {
    let (_session, mut process) = start(&suite, "echo go; read a; echo got:$a; read b").await?;
    process.read_until("go").await?;
    let mut offset = 0;
    for typed in ["h", "e", "y"] {
        process.stdin(offset, typed).await?;
        offset += 1;
        process.read_until(typed).await?;
    }
    process.stdin(offset, "\r").await?;
    process.read_until("got:hey").await?;
    process.stdin(offset + 1, "\r").await?;
    process.finish().await
}

async fn resize(suite: Suite) -> Verdict {
    let script = "stty size; until [ \"$(stty size)\" = '50 120' ]; do sleep 0.1; done; echo seen";
    let (_session, mut process) = start(&suite, script).await?;
    process.read_until("37 101").await?;
    process
        .send(Request::Resize(WindowSize {
            rows: 50,
            columns: 120,
        }))
        .await?;
    process.read_until("seen").await?;
    process.finish().await
}

async fn interrupt(suite: Suite) -> Verdict {
    let script = "trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.1; done";
    let (_session, mut process) = start(&suite, script).await?;
    process.read_until("ready").await?;
    process.stdin(0, "\x03").await?;
    process.finish().await?;
    let (said, ending) = (process.output.text(), process.output.ending());
    ensure!(
        said.contains("interrupted") && process.output.code() == Some(7),
        "after Ctrl-C: {ending}; {said:?}"
    );
    Ok(())
}

async fn eof(suite: Suite) -> Verdict {
    let (session, mut process) = start(&suite, "cat; echo after; exit 3").await?;
    process.stdin(0, "line\r").await?;
    process.read_until("line\r\nline").await?;
    process.stdin(5, "\x04").await?;
    process.finish().await?;
    let (said, ending) = (process.output.text(), process.output.ending());
    ensure!(
        said.contains("after") && process.output.code() == Some(3),
        "after Ctrl-D: {ending}; {said:?}"
    );
    let spec = in_terminal("cat; echo after; exit 3");
    let mut process = Process::start(&suite, &session, spec).await?;
    process.stdin(0, "line\r").await?;
    process.read_until("line\r\nline").await?;
    process.stdin_eof(5).await?;
    process.finish().await?;
    let (said, ending) = (process.output.text(), process.output.ending());
    ensure!(
        said.contains("after") && process.output.code() == Some(3),
        "after `stdin_eof`: {ending}; {said:?}"
    );
    Ok(())
}
