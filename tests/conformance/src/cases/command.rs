//! RunCommand, on platforms that can give no byte stream.

use cofferdam_proto::compute::v1::{CommandFile, TerminationReason};
use tonic::Code;

use crate::answer::{refused_with, refused_with_one_of};
use crate::case::{Case, Stop, Verdict, ensure, fail, run, skip};
use crate::command::{Command, run as run_command, say, script};
use crate::needs::Need;
use crate::random;
use crate::suite::Suite;
use crate::wait;

const ATTACH: &str = "keep each command under its id, with its output and how it ended, until its \
    sandbox is deleted";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "command.run.output",
        source: "RunCommand, CommandOutput",
        says: "Both output streams come whole, told apart, at offsets that count both together, and \
               then exactly one `exited`.",
        fix: "count every byte once; end the stream with `exited`, and with nothing after it",
        needs: &[Need::DriverExecuted],
        run: run!(output),
    },
    Case {
        id: "command.run.exit-codes",
        source: "CommandExited, Termination",
        says: "EXITED with the program's own code, or SIGNALED with the signal.",
        fix: "hand on what the platform says of the program, and not of a shell around it",
        needs: &[Need::DriverExecuted],
        run: run!(exit_codes),
    },
    Case {
        id: "command.run.arguments",
        source: "RunCommandRequest",
        says: "Arguments, environment, secrets and directory are what was asked for, unchanged.",
        fix: "hand arguments over as a list; a shell in between changes them",
        needs: &[Need::DriverExecuted],
        run: run!(arguments),
    },
    Case {
        id: "command.run.files",
        source: "CommandFile",
        says: "Files are there, with their content and mode, before the command begins.",
        fix: "place the files, and then start the command",
        needs: &[Need::DriverExecuted],
        run: run!(files),
    },
    Case {
        id: "command.run.idempotent",
        source: "RunCommand",
        says: "The same command id again attaches to what runs or has ended, with its output from \
               `from_offset` on.",
        fix: ATTACH,
        needs: &[Need::DriverExecuted],
        run: run!(idempotent),
    },
    Case {
        id: "command.run.cancelled",
        source: "RunCommand",
        says: "Cancelling the call leaves the command running; who attaches again misses nothing.",
        fix: ATTACH,
        needs: &[Need::DriverExecuted],
        run: run!(cancelled),
    },
    Case {
        id: "command.run.large-output",
        source: "CommandOutput",
        says: "Output comes whole and in order, however much it is.",
        fix: "read and send in pieces; a slow reader blocks the command, and loses nothing",
        needs: &[Need::DriverExecuted],
        run: run!(large_output),
    },
    Case {
        id: "command.run.timeout",
        source: "RunCommandRequest.timeout_ms",
        says: "After so much time the command is ended, and `exited` says DEADLINE.",
        fix: "end the command on the platform, and answer DEADLINE",
        needs: &[Need::DriverExecuted],
        run: run!(timeout),
    },
    Case {
        id: "command.run.deleted",
        source: "RunCommand, DeleteSandbox",
        says: "To end a command, delete its sandbox: the stream ends, and not with a success.",
        fix: "end every stream of a sandbox that is deleted, with an error or a termination",
        needs: &[Need::DriverExecuted],
        run: run!(deleted),
    },
    Case {
        id: "command.run.refused",
        source: "RunCommand",
        says: "NOT_FOUND for a sandbox that is not known, FAILED_PRECONDITION for one that does not \
               run, INVALID_ARGUMENT without a program.",
        fix: "look at the sandbox's state before the command is handed on",
        needs: &[Need::DriverExecuted],
        run: run!(refused),
    },
];

async fn output(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let text = "echo one; echo two >&2; printf three; exit 3";
    let command = run_command(&driver, script(&subject.id, text)).await?;
    ensure!(
        command.stdout == b"one\nthree" && command.stderr == b"two\n",
        "stdout was {:?}, stderr {:?}",
        String::from_utf8_lossy(&command.stdout),
        String::from_utf8_lossy(&command.stderr)
    );
    ensure!(command.code() == Some(3), "{}", command.ending());
    Ok(())
}

async fn exit_codes(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    for code in [0, 1, 42, 127, 255] {
        let command = run_command(&driver, script(&subject.id, &format!("exit {code}"))).await?;
        ensure!(
            command.code() == Some(code),
            "`exit {code}` ended with {}",
            command.ending()
        );
    }
    let command = run_command(&driver, script(&subject.id, "kill -9 $$")).await?;
    let termination = command.exited.clone().unwrap_or_default().termination;
    let termination = termination.unwrap_or_default();
    // A platform may know no more of it than a shell does.
    let is_told = match termination.reason() {
        TerminationReason::Signaled => termination.signal == 9,
        TerminationReason::Exited => termination.exit_code == 137,
        _ => false,
    };
    ensure!(is_told, "`kill -9 $$` ended with {}", command.ending());
    Ok(())
}

async fn arguments(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let secret = format!("secret-{}", hex::encode(random::bytes::<16>()));
    let mut request = script(
        &subject.id,
        "printf '[%s]' \"$0\" \"$@\"; echo; echo \"$PLAIN\"; echo \"$HIDDEN\" | tr 0-9a-f g-v; pwd",
    );
    for odd in ["a b", "$HOME", "'\"\\", "", "*"] {
        request.argv.push(odd.as_bytes().to_vec().into());
    }
    request
        .environment
        .insert("PLAIN".to_owned(), "p l=a;i'n".to_owned());
    request
        .secret_environment
        .insert("HIDDEN".to_owned(), secret.clone());
    request.cwd = "/tmp".to_owned();
    suite
        .recorder()
        .keep_secret("a value of secret_environment", secret.as_bytes());
    let command = run_command(&driver, request).await?;
    let said = command.text();
    let lines: Vec<&str> = said.lines().collect();
    // Turned into other letters in the sandbox: its own output is no leak.
    let hidden: String = secret.chars().map(turned).collect();
    let expected = [
        "[a b][$HOME]['\"\\][][*]",
        "p l=a;i'n",
        hidden.as_str(),
        "/tmp",
    ];
    ensure!(
        lines == expected,
        "it was to say {expected:?}, and said {lines:?}; {}",
        command.ending()
    );
    Ok(())
}

/// As `tr 0-9a-f g-v`.
fn turned(character: char) -> char {
    match character {
        '0'..='9' => char::from(b'g' + (character as u8 - b'0')),
        'a'..='f' => char::from(b'q' + (character as u8 - b'a')),
        other => other,
    }
}

async fn files(suite: Suite) -> Verdict {
    if !suite.capabilities().command_files {
        skip!("the driver does not claim command_files");
    }
    let (driver, subject) = suite.with_sandbox().await?;
    let data = random::long(20_000);
    let file = |path: &str, mode, content: &[u8]| CommandFile {
        path: path.to_owned(),
        mode,
        content: content.to_vec().into(),
    };
    // A driver without isolation has its host's /tmp.
    let place = format!("/tmp/conformance-{}", random::word());
    let text = format!("sha256sum < {place}.data; {place}.tool; rm -f {place}.data {place}.tool");
    let mut request = script(&subject.id, &text);
    request.files = vec![
        file(&format!("{place}.data"), 0o644, &data),
        file(&format!("{place}.tool"), 0o755, b"#!/bin/sh\necho tool\n"),
    ];
    let command = run_command(&driver, request).await?;
    let digest = hex::encode(crate::remote::sha256(&data));
    let said = command.text();
    ensure!(
        said.contains(&digest) && said.contains("tool"),
        "two files were to be there: {said:?}; {}",
        command.ending()
    );
    Ok(())
}

async fn idempotent(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let request = script(
        &subject.id,
        "echo x >> runs; echo hello; echo err >&2; exit 4",
    );
    let first = run_command(&driver, request.clone()).await?;
    for from_offset in [0, 3, first.end()] {
        let mut again = request.clone();
        again.from_offset = from_offset;
        let again = run_command(&driver, again).await?;
        let offset = usize::try_from(from_offset).unwrap_or(usize::MAX);
        ensure!(
            first.all.get(offset..) == Some(again.all.as_slice()) && again.code() == Some(4),
            "the same command id from offset {from_offset} on: {:?}, {}; the first time it was {:?}, {}",
            again.text(),
            again.ending(),
            first.text(),
            first.ending()
        );
    }
    let runs = say(&driver, &subject.id, "wc -l < runs").await?;
    ensure!(runs == "1", "the command has run {runs} times");
    Ok(())
}

async fn cancelled(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let text = "echo begun; while [ ! -e go ]; do sleep 0.1; done; echo done; exit 5";
    let request = script(&subject.id, text);
    let mut command = Command::open(&driver, request.clone()).await?;
    command.read_until("begun").await?;
    let from_offset = command.end();
    drop(command);
    // Another gateway process, after the first one has died.
    driver.hang_up().await;
    let driver = suite.driver().await?;
    say(&driver, &subject.id, "touch go").await?;
    let mut again = request;
    again.from_offset = from_offset;
    let again = run_command(&driver, again).await?;
    ensure!(
        again.text() == "done\n" && again.code() == Some(5),
        "after its call was cancelled: {:?}, {}",
        again.text(),
        again.ending()
    );
    Ok(())
}

async fn large_output(suite: Suite) -> Verdict {
    const LINES: u32 = 400_000;
    let (driver, subject) = suite.with_sandbox().await?;
    let command = run_command(&driver, script(&subject.id, &format!("seq 1 {LINES}"))).await?;
    let expected: String = (1..=LINES).map(|number| format!("{number}\n")).collect();
    ensure!(
        command.stdout == expected.as_bytes(),
        "of {} bytes {} came, and not the same ones",
        expected.len(),
        command.stdout.len()
    );
    Ok(())
}

async fn timeout(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let mut request = script(&subject.id, "echo begun; sleep 1000");
    request.timeout_ms = 1500;
    let begun = wait::now_ms();
    let command = run_command(&driver, request).await?;
    let took = wait::now_ms().saturating_sub(begun);
    ensure!(
        took >= 1000,
        "a command with a timeout of 1500 ms was ended after {took} ms"
    );
    ensure!(
        command.reason() == TerminationReason::Deadline,
        "a command that took longer than its timeout ended with {}",
        command.ending()
    );
    Ok(())
}

async fn deleted(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let mut command = Command::open(&driver, script(&subject.id, "echo begun; sleep 1000")).await?;
    command.read_until("begun").await?;
    driver.delete(&subject.id).await?;
    match command.finish().await {
        // An error, or `exited` with what has ended it.
        Err(Stop::Failed { seen, .. }) if seen.contains("did not answer") => {
            fail!("its sandbox was deleted, and the stream of a command goes on")
        }
        Err(Stop::Failed { seen, .. }) if seen.contains("without `exited`") => {
            fail!("its sandbox was deleted, and the stream of a command ended as if all were well")
        }
        Err(_) => {}
        Ok(()) => ensure!(
            command.code() != Some(0),
            "its sandbox was deleted, and a command has ended with {}",
            command.ending()
        ),
    }
    subject.must_be_gone(&driver).await
}

async fn refused(suite: Suite) -> Verdict {
    let (driver, subject) = suite.with_sandbox().await?;
    let nobody = run_to_refusal(&suite, script("conf-nobody", "true")).await;
    refused_with(nobody, Code::NotFound)?;
    let mut nothing = script(&subject.id, "");
    nothing.argv.clear();
    let nothing = run_to_refusal(&suite, nothing).await;
    refused_with(nothing, Code::InvalidArgument)?;
    if suite.capabilities().stop_start {
        driver.stop(&subject.id, 0).await?;
        let stopped = run_to_refusal(&suite, script(&subject.id, "true")).await;
        refused_with_one_of(stopped, &[Code::FailedPrecondition])?;
    }
    Ok(())
}

async fn run_to_refusal(
    suite: &Suite,
    request: cofferdam_proto::compute::v1::RunCommandRequest,
) -> Result<usize, crate::answer::Refused> {
    let Ok(driver) = suite.driver().await else {
        return Ok(0);
    };
    let stream = driver.run_command(request).await?;
    stream.all().await.map(|messages| messages.len())
}
