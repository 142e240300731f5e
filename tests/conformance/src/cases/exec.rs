//! Commands over the byte stream: what they say, and how they end.

use cofferdam_proto::compute::v1::{Isolation, image_spec};
use cofferdam_proto::supervisor::v1::process_exited::Result as Ending;
use cofferdam_proto::supervisor::v1::start_failure::Reason;
use cofferdam_proto::supervisor::v1::{EnvironmentVariable, ProcessSpec, StartFailure};

use crate::case::{Case, Verdict, ensure, run};
use crate::needs::Need;
use crate::process::{program, run as run_program, say, sh, shell};
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
    Case {
        id: "interactive.exec.environment",
        source: "ProcessSpec, ConfigureRequest",
        says: "A command's environment is what was asked for, with PATH, HOME and USER, and nothing \
               of the driver's own.",
        fix: "start the supervisor with an empty environment",
        needs: &[Need::Supervised],
        run: run!(environment),
    },
    Case {
        id: "interactive.exec.directory",
        source: "ProcessSpec",
        says: "A command runs where it was told to, and without that in the workspace.",
        fix: "put the workspace of the spec, or /workspace, into the bootstrap",
        needs: &[Need::Supervised],
        run: run!(directory),
    },
    Case {
        id: "interactive.exec.place",
        source: "SandboxSpec",
        says: "There are a writable /tmp, the usual devices, and a /proc of the sandbox's own.",
        fix: "mount a tmpfs on /tmp, a minimal /dev, and the /proc of the new pid namespace",
        needs: &[Need::Supervised],
        run: run!(place),
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
    // Signals have their own cases; 128 + n is a code like any other.
    for code in [0, 1, 42, 125, 127, 137, 255] {
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

async fn environment(suite: Suite) -> Verdict {
    let (_driver, subject, session) = suite.with_session().await?;
    let variable = |name: &str, value: &str| EnvironmentVariable {
        name: name.to_owned(),
        value: value.as_bytes().to_vec().into(),
    };
    let spec = ProcessSpec {
        environment: vec![variable("ASKED", "a b=c"), variable("EMPTY", "")],
        ..program(&["env"])
    };
    let output = run_program(&suite, &session, spec).await?;
    let text = output.text();
    for line in ["ASKED=a b=c", "EMPTY="] {
        ensure!(
            text.lines().any(|one| one == line),
            "{line:?} was asked for, and is not in the environment: {text:?}"
        );
    }
    for name in ["PATH", "HOME", "USER"] {
        let start = format!("{name}=");
        let set = text
            .lines()
            .any(|one| one.starts_with(&start) && one.len() > start.len());
        ensure!(set, "{name} is not in the environment: {text:?}");
    }
    let known = [
        "ASKED", "EMPTY", "PATH", "HOME", "USER", "PWD", "SHLVL", "_", "TERM", "LOGNAME",
    ];
    // An image has variables of its own; one with the suite's very value comes from the driver.
    let source = subject.spec.image.as_ref();
    let source = source.and_then(|image| image.source.as_ref());
    let has_image = !matches!(source, None | Some(image_spec::Source::Host(_)));
    let is_of_image = |name: &str, value: &str| {
        let is_language = name == "LANG" || name.starts_with("LC_");
        has_image && (is_language || std::env::var(name).ok().as_deref() != Some(value))
    };
    let strange: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, value)| !known.contains(name) && !is_of_image(name, value))
        .map(|(name, _)| name)
        .collect();
    ensure!(
        strange.is_empty(),
        "nobody asked for {} in the environment",
        strange.join(", ")
    );
    Ok(())
}

async fn directory(suite: Suite) -> Verdict {
    let (_driver, subject, session) = suite.with_session().await?;
    let here = say(&suite, &session, "pwd").await?;
    let wanted = match subject.spec.workspace.as_str() {
        "" => "/workspace",
        workspace => workspace,
    };
    // Without a file tree of its own a sandbox cannot have that path.
    let is_isolated = suite.capabilities().isolation() > Isolation::NoIsolation;
    ensure!(
        !is_isolated || here == wanted,
        "a command ran in {here:?}, and the workspace is {wanted:?}"
    );
    let elsewhere = |cwd: &str| ProcessSpec {
        cwd: cwd.to_owned(),
        ..shell("pwd")
    };
    let there = run_program(&suite, &session, elsewhere("/tmp")).await?;
    ensure!(
        there.text() == "/tmp\n",
        "a command was to run in /tmp, and ran in {:?}",
        there.text()
    );
    let nowhere = run_program(&suite, &session, elsewhere("/no/such/place")).await?;
    ensure!(
        nowhere.code().is_none(),
        "a command ran in a directory that is not there: {}",
        nowhere.ending()
    );
    Ok(())
}

async fn place(suite: Suite) -> Verdict {
    let (_driver, _subject, session) = suite.with_session().await?;
    let script = "echo x > /tmp/conformance.$$ && cat /tmp/conformance.$$ && rm /tmp/conformance.$$ \
        && echo y > /dev/null && head -c 3 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c \
        && test -r /proc/self/status && test -d /proc/$$ && echo z";
    let said = say(&suite, &session, script).await?;
    let said: Vec<&str> = said.split_whitespace().collect();
    ensure!(
        said == ["x", "3", "4", "z"],
        "/tmp, /dev and /proc are not as usual: {said:?}"
    );
    Ok(())
}
