//! Commands through a running gateway: what comes in, what comes out, how it ends.

use cofferdam_proto::gateway::v1::{ExecutionReason, ExecutionState, SandboxRequest};
use cofferdam_tests::{TestGateway, client, long_time, process, wait};
use serde_json::Value;

#[test]
fn a_one_shot_passes_output_and_exit_code_on_and_leaves_no_sandbox() {
    let gateway = TestGateway::start();
    let ran = gateway.run(["run", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(ran.exited(7), "out");
    assert_eq!(ran.stderr, "err\n");
    wait::until_true("its sandbox is gone", || {
        gateway.ok(["ls", "-a", "-q"]).is_empty()
    });
}

#[test]
fn exit_codes_say_how_a_command_ended() {
    let gateway = TestGateway::start();
    let sandbox = gateway.create(["--name", "codes"]);
    let exec = ["exec", sandbox.as_str()];
    let code = |args: &[&str]| gateway.run(exec.iter().chain(args));
    code(&["true"]).exited(0);
    code(&["sh", "-c", "exit 255"]).exited(255);
    code(&["no-such-program"]).exited(127);
    code(&["/etc/passwd"]).exited(126);
    code(&["sh", "-c", "kill -TERM $$"]).exited(128 + 15);
    code(&["sh", "-c", "kill -KILL $$"]).exited(128 + 9);
    let timeout = ["exec", "--timeout", "1s", "codes", "sleep", "600"];
    gateway.run(timeout).exited(124);
    gateway.run(["exec", "no-such-sandbox", "true"]).exited(125);
    gateway.run(["exec", "codes"]).exited(125);
}

#[test]
fn json_gives_the_typed_reason_beside_the_exit_code() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "typed"]);
    let result = |args: &[&str]| -> Value {
        let words = ["--json", "exec"].iter().chain(args);
        gateway.run(words).result()
    };
    let found = result(&["typed", "sh", "-c", "exit 125"]);
    assert_eq!(found["exit_code"], 125);
    assert_eq!(found["execution"]["reason"], "EXITED");
    assert_eq!(found["execution"]["exit_code"], 125);
    let found = result(&["--timeout", "1s", "typed", "sleep", "600"]);
    assert_eq!(found["exit_code"], 124);
    assert_eq!(found["execution"]["state"], "TIMED_OUT");
    assert_eq!(found["execution"]["reason"], "TIMEOUT");
    let found = result(&["typed", "no-such-program"]);
    assert_eq!(found["execution"]["reason"], "PROGRAM_NOT_FOUND");
    let found = result(&["no-such-sandbox", "true"]);
    assert_eq!(found["exit_code"], 125);
    assert_eq!(found["error"]["reason"], "SANDBOX_NOT_FOUND");
}

#[test]
fn stdin_arrives_and_so_does_its_end() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "stdin"]);
    let count = gateway
        .cli(["exec", "-i", "stdin", "sh", "-c", "cat; echo; echo end"])
        .stdin("one\ntwo")
        .run();
    assert_eq!(count.success(), "one\ntwo\nend");
    // Without -i there is nothing to read, rather than something that never comes.
    assert_eq!(gateway.ok(["exec", "stdin", "cat"]), "");
}

#[test]
fn what_is_typed_is_answered_before_stdin_ends() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "talk"]);
    let mut running = gateway.cli(["exec", "-i", "talk", "cat"]).spawn();
    running.type_in("first\n");
    running.expect("first\n");
    running.type_in("second\n");
    running.expect("second\n");
    running.end_stdin();
    assert_eq!(running.wait().success(), "first\nsecond");
}

#[test]
fn environment_directory_and_arguments_arrive_unchanged() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "plain", "--env", "FROM_SANDBOX=1"]);
    let script = r#"printf '%s\n' "$FROM_SANDBOX" "$WORD" "$(pwd)" "$@"; env"#;
    let text = gateway.ok([
        "exec",
        "--env",
        "WORD=two  words",
        "--workdir",
        "/tmp",
        "plain",
        "sh",
        "-c",
        script,
        "sh",
        "a b",
        "",
        "$HOME",
        "ü",
    ]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..7],
        ["1", "two  words", "/tmp", "a b", "", "$HOME", "ü"]
    );
    assert!(
        !text.contains("COFFERDAM"),
        "the gateway's own environment: {text}"
    );
}

#[test]
fn a_detached_execution_is_found_again_and_followed_to_its_end() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "later"]);
    // It ends when the test says so.
    let script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo done; exit 3";
    let id = gateway.ok(["exec", "--detach", "later", "sh", "-c", script]);
    assert!(gateway.ok(["ps", "-q"]).contains(&id));
    let logs = gateway.cli(["logs", "-f", &id]).spawn();
    let attached = gateway
        .cli(["attach", "--from-start", "--no-stdin", &id])
        .spawn();
    logs.expect("begun\n");
    attached.expect("begun\n");
    gateway.ok(["exec", "later", "touch", "go"]);
    assert_eq!(logs.wait().text(), "begun\ndone\n");
    assert_eq!(attached.wait().exited(3), "begun\ndone");
    assert_eq!(gateway.run(["logs", &id]).text(), "begun\ndone\n");
    let found = gateway.json(["inspect", &id]);
    assert_eq!(found["state"], "FAILED");
    assert_eq!(found["exit_code"], 3);
}

#[test]
fn a_second_terminal_sees_what_the_first_one_sees() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "shared"]);
    let script = "cat; echo to-stderr >&2";
    let mut first = gateway
        .cli(["exec", "-i", "shared", "sh", "-c", script])
        .spawn();
    first.type_in("early\n");
    first.expect("early\n");
    let id = wait::until("the execution is listed", || {
        let id = gateway.ok(["ps", "-q"]);
        (!id.is_empty()).then_some(id)
    });
    let second = gateway.cli(["logs", "-f", &id]).spawn();
    second.expect("early\n");
    for line in 0..200 {
        first.type_in(&format!("line {line} {}\n", "x".repeat(line)));
    }
    first.end_stdin();
    let (first, second) = (first.wait(), second.wait());
    assert_eq!(first.text().lines().count(), 201);
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(
        (first.stderr.as_str(), second.stderr.as_str()),
        ("to-stderr\n", "to-stderr\n")
    );
}

#[test]
fn a_grandchild_that_keeps_stdout_open_does_not_hang_the_execution() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "held"]);
    let marker = long_time();
    let script = format!("sleep {marker} & echo started");
    let ran = gateway.run(["exec", "held", "sh", "-c", &script]);
    assert_eq!(ran.success(), "started");
    // It goes on, as after `docker exec`, until its sandbox is removed.
    assert_eq!(process::with_argument(&marker).len(), 1);
    gateway.ok(["rm", "held"]);
    assert_eq!(process::with_argument(&marker), [] as [u32; 0]);
}

#[test]
fn ctrl_c_ends_the_command_and_a_second_one_forces_it() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "interrupt"]);
    let polite = "trap 'echo bye; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let running = gateway
        .cli(["exec", "interrupt", "sh", "-c", polite])
        .spawn();
    running.expect("ready\n");
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait().exited(5), "ready\nbye");

    let stubborn = "trap '' INT TERM; echo ready; while :; do sleep 0.05; done";
    let running = gateway
        .cli(["exec", "interrupt", "sh", "-c", stubborn])
        .spawn();
    running.expect("ready\n");
    running.signal(rustix::process::Signal::INT);
    // The second is another signal only once the first was taken.
    wait::until_true("the first was forwarded", || {
        process::status(running.pid(), "ShdPnd").is_some_and(|set| set.ends_with("0000"))
    });
    running.signal(rustix::process::Signal::INT);
    let ran = running.wait();
    assert!(ran.code() >= 125, "{}: {}", ran.code(), ran.stderr);
    wait::until_true("nothing runs any more", || {
        gateway.ok(["ps", "-q"]).is_empty()
    });
}

#[test]
fn a_caller_that_is_killed_leaves_nothing_running() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "orphan"]);
    let marker = long_time();
    let script = format!("echo on; sleep {marker}");
    let running = gateway.cli(["exec", "orphan", "sh", "-c", &script]).spawn();
    running.expect("on\n");
    running.signal(rustix::process::Signal::KILL);
    wait::until_true("its execution is canceled", || {
        gateway.ok(["ps", "-q"]).is_empty()
    });
    let found = gateway.json(["ps", "--last", "1"]);
    assert_eq!(found["reason"], "CALLER_LEFT");
    wait::until_true("its process is gone", || {
        process::with_argument(&marker).is_empty()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_executions_at_once_each_get_their_own_output_and_code() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let wanted = SandboxRequest {
        pids: Some(1000),
        ..SandboxRequest::default()
    };
    let sandbox = client::create(&mut caller, wanted).await;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (mut caller, sandbox) = (caller.clone(), sandbox.clone());
        running.spawn(async move {
            // All of them wait for the last one.
            let script = format!(
                "touch at-{number}; while [ \"$(ls | grep -c at-)\" -lt 100 ]; do sleep 0.2; done; \
                 echo {number}; exit {number}"
            );
            let followed = client::run(
                &mut caller,
                client::command(&sandbox, ["sh", "-c", &script]),
            )
            .await;
            (number, followed)
        });
    }
    while let Some(ended) = running.join_next().await {
        let (number, followed) = ended.unwrap();
        assert_eq!(followed.stdout, format!("{number}\n").into_bytes());
        assert_eq!(followed.execution.exit_code, Some(number));
        let expected = match number {
            0 => ExecutionState::ExecutionSucceeded,
            _ => ExecutionState::ExecutionFailed,
        };
        assert_eq!(followed.execution.state(), expected);
        assert_eq!(followed.execution.reason(), ExecutionReason::ReasonExited);
    }
}

#[test]
fn stop_and_start_keep_the_workspace_and_nothing_else() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "again"]);
    let marker = long_time();
    let script = format!("echo kept > note; setsid sleep {marker} >/dev/null 2>&1 &");
    gateway.ok(["exec", "again", "sh", "-c", &script]);
    gateway.ok(["stop", "--grace", "1s", "again"]);
    assert_eq!(process::with_argument(&marker), [] as [u32; 0]);
    gateway.run(["exec", "again", "true"]).exited(125);
    gateway.ok(["start", "again"]);
    wait::until_true("it is ready again", || {
        gateway.json(["inspect", "again"])["state"] == "READY"
    });
    assert_eq!(gateway.ok(["exec", "again", "cat", "note"]), "kept");
}
