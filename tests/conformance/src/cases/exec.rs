//! Commands over the byte stream: what they say, and how they end.

use cofferdam_proto::supervisor::v1::StartFailure;
use cofferdam_proto::supervisor::v1::process_exited::Result as Ending;
use cofferdam_proto::supervisor::v1::start_failure::Reason;

use crate::case::{Case, Verdict, ensure, run};
use crate::needs::Need;
use crate::process::{program, run as run_program, say, sh};
use crate::suite::Suite;

const STREAM: &str = "carry every byte of the stream, in order, both ways: docs/supervisor.md";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.exec.output",
        source: "Process",
        says: "Both output streams come whole, told apart, and then how the process ended.",
        fix: STREAM,
        needs: &[Need::Supervised],
        run: run!(output),
    },
    Case {
        id: "interactive.exec.exit-codes",
        source: "ProcessExited",
        says: "The exit status is the program's own, 0 to 255.",
        fix: STREAM,
        needs: &[Need::Supervised],
        run: run!(exit_codes),
    },
    Case {
        id: "interactive.exec.not-found",
        source: "StartFailure",
        says: "A program that is not there never ran, and that is said.",
        fix: "leave the answer to the supervisor: a wrapper that answers 127 hides it",
        needs: &[Need::Supervised],
        run: run!(not_found),
    },
    Case {
        id: "interactive.exec.user",
        source: "SandboxSpec",
        says: "Commands run as `uid` and `gid`, in the workspace, which they may write.",
        fix: "put both into `workload` of the bootstrap, and make the workspace theirs",
        needs: &[Need::Supervised],
        run: run!(user),
    },
];

async fn output(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let output = sh(&suite, &session, "echo one; echo two >&2; printf three").await?;
    ensure!(
        output.stdout == b"one\nthree",
        "stdout was {:?}",
        output.stdout
    );
    ensure!(output.stderr == b"two\n", "stderr was {:?}", output.stderr);
    ensure!(
        output.code() == Some(0),
        "it ended with {}",
        output.ending()
    );
    Ok(())
}

async fn exit_codes(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    for code in [0, 1, 42, 125, 127, 255] {
        let output = sh(&suite, &session, &format!("exit {code}")).await?;
        ensure!(
            output.code() == Some(code),
            "`exit {code}` ended with {}",
            output.ending()
        );
    }
    Ok(())
}

async fn not_found(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let output = run_program(&suite, &session, program(&["/no/such/program"])).await?;
    let ending = output
        .exited
        .as_ref()
        .and_then(|exited| exited.result.clone());
    let never_ran = matches!(
        &ending,
        Some(Ending::StartFailure(StartFailure { reason, .. }))
            if *reason == i32::from(Reason::NotFound)
    );
    ensure!(never_ran, "it ended with {}", output.ending());
    Ok(())
}

async fn user(suite: Suite) -> Verdict {
    let (_driver, subject, session) = suite.with_session().await?;
    if suite.capabilities().choose_user {
        let ids = say(&suite, &session, "echo $(id -u) $(id -g)").await?;
        let expected = format!("{} {}", subject.spec.uid, subject.spec.gid);
        ensure!(
            ids == expected,
            "uid and gid are {ids}, and {expected} was asked for"
        );
    } else {
        let uid = say(&suite, &session, "id -u").await?;
        ensure!(
            uid != "0",
            "the workload is root, and nobody asked for that"
        );
    }
    let said = say(&suite, &session, "echo kept > file && cat file").await?;
    ensure!(said == "kept", "a file in the workspace held {said:?}");
    Ok(())
}
