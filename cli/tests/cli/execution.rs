//! `run` and `exec`: output, exit codes, results.

use std::io::Write as _;
use std::process::Stdio;

use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_proto::gateway::v1::execute_request::Request as Asked;
use cofferdam_proto::gateway::v1::execution_request::Place;
use cofferdam_proto::gateway::v1::*;
use tonic::Status;

use crate::support::fake::{ended, exited, running};
use crate::support::{Fake, code, last_object, shown, text};

/// Runs `cofferdam run -- true` against a gateway that ends the execution like this.
fn run_that_ends(execution: Execution, flags: &[&str]) -> std::process::Output {
    let fake = Fake::start();
    fake.on_execute(async move |mut call| {
        call.begin().await;
        call.send(Event::Finished(execution)).await;
    });
    let arguments: Vec<&str> = ["run"]
        .iter()
        .chain(flags)
        .chain(&["--", "true"])
        .copied()
        .collect();
    fake.run(&arguments)
}

#[test]
fn output_goes_where_it_belongs_and_the_exit_code_is_the_commands_own() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        let start = call.begin().await;
        let execution = start.execution.unwrap();
        assert_eq!(execution.argv, ["sh", "-c", "echo hi"]);
        assert!(matches!(execution.place, Some(Place::OneShot(_))));
        assert!(!execution.stdin && execution.pty.is_none() && !execution.detachable);
        assert!(start.idempotency_key.len() > 30);
        call.output(0, OutputStream::Stdout, "hi\n").await;
        call.output(3, OutputStream::Stderr, "oops\n").await;
        call.output(8, OutputStream::Stdout, [0, 255, 10].to_vec())
            .await;
        call.send(Event::Finished(exited(42))).await;
    });
    let output = fake.run(&["run", "--", "sh", "-c", "echo hi"]);
    assert_eq!(output.stdout, b"hi\n\x00\xff\n");
    assert_eq!(text(&output.stderr), "oops\n");
    assert_eq!(code(&output), 42);
}

#[test]
fn every_ending_has_its_exit_code_and_words() {
    use ExecutionReason as Reason;
    use ExecutionState as State;
    let signaled = Execution {
        signal: Some(15),
        ..ended(State::ExecutionFailed, Reason::ReasonSignaled)
    };
    let timed_out = Execution {
        timeout_ms: 90_000,
        ..ended(State::ExecutionTimedOut, Reason::ReasonTimeout)
    };
    let all = [
        exited(0),
        signaled,
        timed_out,
        ended(State::ExecutionFailed, Reason::ReasonOomKilled),
        ended(State::ExecutionFailed, Reason::ReasonProgramNotFound),
        ended(State::ExecutionFailed, Reason::ReasonProgramNotExecutable),
        ended(State::ExecutionFailed, Reason::ReasonSandboxFailed),
        ended(State::ExecutionCanceled, Reason::ReasonSandboxDeleted),
        ended(State::ExecutionCanceled, Reason::ReasonSandboxStopped),
        ended(State::ExecutionLost, Reason::ReasonSupervisorLost),
        // A gateway that says nothing useful.
        ended(State::ExecutionFailed, Reason::Unspecified),
        exited(256),
    ];
    let shown: Vec<String> = all
        .into_iter()
        .map(|end| shown(&run_that_ends(end, &[])))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn with_json_the_last_line_of_stderr_is_the_result() {
    let output = run_that_ends(
        ended(
            ExecutionState::ExecutionFailed,
            ExecutionReason::ReasonOomKilled,
        ),
        &["--json"],
    );
    assert_eq!(code(&output), 137);
    let result = last_object(&output.stderr);
    assert_eq!(result["exit_code"], 137);
    assert_eq!(result["execution"]["reason"], "OOM_KILLED");
    assert_eq!(result["error"]["kind"], "FAILED");
    insta::assert_snapshot!(text(&output.stderr));
}

#[test]
fn with_json_stdout_stays_the_commands_own() {
    let fake = Fake::start();
    fake.on_execute(async |mut call| {
        call.begin().await;
        call.output(0, OutputStream::Stdout, "data").await;
        call.send(Event::Finished(exited(0))).await;
    });
    let output = fake.run(&["exec", "--json", "box", "true"]);
    assert_eq!(output.stdout, b"data");
    let result = last_object(&output.stderr);
    assert_eq!(result["exit_code"], 0);
    assert_eq!(result["error"], serde_json::Value::Null);
    assert_eq!(result["execution"]["state"], "SUCCEEDED");
}

#[test]
fn what_is_asked_for_is_what_was_typed() {
    let fake = Fake::start();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    fake.on_execute(async move |mut call| {
        let start = call.begin().await;
        sender.send(start.execution.unwrap()).unwrap();
        call.send(Event::Finished(exited(0))).await;
    });
    std::fs::write(fake.dir().join("vars"), "FROM_FILE=1\nBOTH=file\n").unwrap();
    let output = fake
        .cofferdam()
        .env("TOKEN", "s3cret")
        .args([
            "run", "--memory", "512M", "--cpus", "0.5", "--pids", "64", "--disk", "1g",
        ])
        .args([
            "--allow",
            "example.com:443",
            "--env-file",
            "vars",
            "--env",
            "BOTH=flag",
        ])
        .args([
            "--secret-env",
            "TOKEN",
            "--workdir",
            "/tmp",
            "--timeout",
            "5m",
        ])
        .args([
            "--label",
            "job=7",
            "--name",
            "web",
            "--image",
            "debian:12",
            "--user",
            "0:0",
        ])
        .args([
            "--driver-config",
            r#"{"a": [1, "b"]}"#,
            "--mount",
            "type=tmpfs,dst=/x,size=1M",
        ])
        .args([
            "--isolation",
            "vm",
            "--lifetime",
            "1h",
            "ls",
            "-la",
            "--json",
        ])
        .output()
        .unwrap();
    assert_eq!(shown(&output), "exit: 0\n--- stdout\n--- stderr\n");
    let execution = receiver.recv().unwrap();
    // A redacted Debug shows no values of variables.
    insta::assert_snapshot!(format!("{execution:#?}"));
    assert_eq!(execution.environment["TOKEN"], "s3cret");
    assert_eq!(execution.environment["BOTH"], "flag");
    assert_eq!(execution.environment["FROM_FILE"], "1");
}

#[test]
fn stdin_is_streamed_to_its_end_when_it_is_asked_for() {
    let fake = Fake::start();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    fake.on_execute(async move |mut call| {
        assert!(call.begin().await.execution.unwrap().stdin);
        let mut all = Vec::new();
        loop {
            match call.asked().await {
                Asked::Stdin(stdin) => {
                    assert_eq!(stdin.offset, all.len() as u64);
                    all.extend_from_slice(&stdin.data);
                    call.send(Event::StdinOffset(all.len() as u64)).await;
                }
                Asked::StdinEof(eof) => {
                    assert_eq!(eof.offset, all.len() as u64);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        sender.send(all).unwrap();
        call.send(Event::Finished(exited(0))).await;
    });
    // More than the window, so that acknowledgements are needed.
    let data: Vec<u8> = (0..6_000_000_u32)
        .map(|index| (index % 251) as u8)
        .collect();
    let mut child = fake
        .cofferdam()
        .args(["exec", "-i", "box", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&data).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(receiver.recv().unwrap() == data, "stdin came out different");
}

#[test]
fn a_detached_start_writes_the_id_and_leaves() {
    let fake = Fake::start();
    fake.on_create_execution(|request| {
        assert!(request.execution.unwrap().detachable);
        Ok(CreateExecutionResponse {
            execution: Some(running()),
        })
    });
    let output = fake.run(&["exec", "-d", "box", "sleep", "1d"]);
    assert_eq!(shown(&output), "exit: 0\n--- stdout\nexec-1\n--- stderr\n");
}

#[test]
fn a_kept_sandbox_is_made_first() {
    let fake = Fake::start();
    fake.on_create_sandbox(|request| {
        assert!(request.wait);
        Ok(CreateSandboxResponse {
            sandbox: Some(Sandbox {
                sandbox_id: "sbx-7".into(),
                state: SandboxState::Ready as i32,
                ..Sandbox::default()
            }),
        })
    });
    fake.on_execute(async |mut call| {
        let place = call.begin().await.execution.unwrap().place;
        assert_eq!(place, Some(Place::Sandbox("sbx-7".into())));
        call.send(Event::Finished(exited(0))).await;
    });
    let output = fake.run(&["run", "--keep", "true"]);
    assert_eq!(
        shown(&output),
        "exit: 0\n--- stdout\n--- stderr\ncofferdam: sbx-7 is kept\n"
    );
}

#[test]
fn a_stream_that_ends_without_a_result_is_never_a_success() {
    for flags in [&[][..], &["--json"]] {
        let fake = Fake::start();
        fake.on_execute(async |mut call| {
            call.begin().await;
            call.output(0, OutputStream::Stdout, "half").await;
        });
        let mut command = fake.cofferdam();
        command
            .arg("run")
            .args(flags)
            .args(["--reconnect-timeout", "0s", "--", "true"]);
        let output = command.output().unwrap();
        assert_eq!(code(&output), 125);
        assert_eq!(text(&output.stdout), "half");
        insta::assert_snapshot!(format!("lost{}", flags.concat()), text(&output.stderr));
    }
}

#[test]
fn a_refusal_of_the_gateway_is_shown_with_everything_it_says() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let fake = Fake::start();
    let refuse = async |call: crate::support::fake::ExecuteCall| {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "INVALID_SPEC",
            "cofferdam",
            [
                ("hint".to_owned(), "see the manual".to_owned()),
                ("request_id".to_owned(), "req-17".to_owned()),
            ],
        );
        details.add_bad_request_violation("one_shot.memory_bytes", "at least 16777216");
        details.add_bad_request_violation("one_shot.driver_config.size", "is not a number");
        details.add_bad_request_violation("frobnication", "unheard of");
        call.fail(Status::with_error_details(
            tonic::Code::InvalidArgument,
            "3 fields are wrong",
            details,
        ))
        .await;
    };
    fake.on_execute(refuse);
    fake.on_execute(refuse);
    let output = fake.run(&["run", "--memory", "1", "true"]);
    insta::assert_snapshot!("refusal", shown(&output));
    let output = fake.run(&["run", "--json", "--memory", "1", "true"]);
    insta::assert_snapshot!("refusal_json", shown(&output));
}

#[test]
fn what_a_driver_cannot_do_is_a_sentence_and_then_what_to_do_about_it() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let fake = Fake::start();
    let refuse = async |call: crate::support::fake::ExecuteCall| {
        let hints = "give the gateway control groups\ndrivers here that can: docker, vm";
        let mut details = ErrorDetails::new();
        let metadata = [("hint".to_owned(), hints.to_owned())];
        details.set_error_info("CAPABILITY_MISMATCH", "cofferdam", metadata);
        call.fail(Status::with_error_details(
            tonic::Code::InvalidArgument,
            "capability_mismatch: driver \"process\" cannot do: memory limit",
            details,
        ))
        .await;
    };
    fake.on_execute(refuse);
    assert_eq!(
        shown(&fake.run(&["run", "--memory", "1G", "true"])),
        "exit: 125\n--- stdout\n--- stderr\n\
         error: not supported: driver \"process\" cannot do: memory limit\n\
         hint: give the gateway control groups\n\
         hint: drivers here that can: docker, vm\n"
    );
    fake.on_execute(refuse);
    let output = fake.run(&["run", "--json", "--memory", "1G", "true"]);
    let error = &last_object(&output.stderr)["error"];
    assert_eq!(error["kind"], "UNSUPPORTED");
    assert_eq!(error["reason"], "CAPABILITY_MISMATCH");
}

#[test]
fn a_variable_that_is_to_be_passed_on_and_is_not_there_is_told_and_left_out() {
    let fake = Fake::start();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    fake.on_execute(async move |mut call| {
        sender.send(call.begin().await.execution.unwrap()).unwrap();
        call.send(Event::Finished(exited(0))).await;
    });
    std::fs::write(fake.dir().join("vars"), "A=1\nNOT_HERE\n").unwrap();
    let arguments = [
        "run",
        "-e",
        "FOO",
        "-e",
        "PATH",
        "--env-file",
        "vars",
        "true",
    ];
    assert_eq!(
        shown(&fake.run(&arguments)),
        "exit: 0\n--- stdout\n--- stderr\n\
         cofferdam: vars:2: NOT_HERE: not set in this environment, so not passed on\n\
         cofferdam: --env FOO: not set in this environment, so not passed on\n"
    );
    let passed = receiver.recv().unwrap().environment;
    let mut names: Vec<&str> = passed.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "PATH"]);
}

#[test]
fn output_that_is_not_kept_any_more_is_announced() {
    let fake = Fake::start();
    fake.on_get_execution(|_| {
        Ok(GetExecutionResponse {
            execution: Some(running()),
        })
    });
    fake.on_execute(async |mut call| {
        assert_eq!(call.attached().await.from_offset, 0);
        call.accept(running(), 0).await;
        call.output(0, OutputStream::Stdout, "ab").await;
        call.send(Event::Gap(Gap {
            offset: 2,
            length: 2048,
        }))
        .await;
        call.output(2050, OutputStream::Stdout, "yz\n").await;
        call.send(Event::Finished(exited(0))).await;
    });
    let output = fake.run(&["attach", "--no-stdin", "--from-start", "exec-1"]);
    assert_eq!(
        shown(&output),
        "exit: 0\n--- stdout\nabyz\n--- stderr\n\
         cofferdam: 2 KiB of output are not kept any more and missing here\n"
    );
}
