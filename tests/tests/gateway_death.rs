//! `kill -9` of the gateway: what it had taken on goes on, and the next one finds it.

use std::process::Command;

use cofferdam_tests::{TestGateway, wait};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn sandboxes_and_a_running_execution_survive_the_gateway() {
    let mut gateway = TestGateway::start();
    for name in ["runs", "stopped"] {
        gateway.create(["--name", name]);
        gateway.ok(["exec", name, "sh", "-c", &format!("echo {name} > note")]);
    }
    gateway.ok(["stop", "stopped"]);
    let script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo \"$i $(echo $i | cksum)\"; \
                  [ $((i % 10)) = 0 ] && sleep 0.1; done; echo end >&2; exit 7";
    let id = gateway.ok(["exec", "--detach", "runs", "sh", "-c", script]);
    let before = gateway.supervisors();
    for _ in 0..2 {
        let seen = gateway.json(["inspect", &id])["output_bytes"].as_u64();
        wait::until_true("there is more output", || {
            gateway.json(["inspect", &id])["output_bytes"].as_u64() > seen
        });
        gateway.kill_and_restart();
    }
    assert_eq!(gateway.supervisors(), before);
    let attached = gateway.run(["attach", "--no-stdin", "--from-start", &id]);
    let expected = Command::new("sh")
        .args(["-c", script])
        .output()
        .expect("sh");
    attached.exited(7);
    assert!(attached.stdout == expected.stdout, "the output differs");
    assert!(attached.stderr.contains("end\n"), "{}", attached.stderr);
    let record = gateway.json(["inspect", &id]);
    assert_eq!(
        (&record["state"], &record["exit_code"]),
        (&"FAILED".into(), &7.into())
    );
    let length = expected.stdout.len() + "end\n".len();
    assert_eq!(record["output_bytes"], length, "doubled or lost");

    let state = |name: &str| gateway.json(["inspect", name])["state"].clone();
    wait::until_true("it is ready", || state("runs") == "READY");
    assert_eq!(state("stopped"), "STOPPED");
    assert_eq!(gateway.ok(["exec", "runs", "cat", "note"]), "runs");
    gateway.ok(["start", "stopped"]);
    wait::until_true("it is ready", || state("stopped") == "READY");
    assert_eq!(gateway.ok(["exec", "stopped", "cat", "note"]), "stopped");
}

#[test]
fn an_attached_caller_reconnects_and_sees_every_byte_once() {
    let mut gateway = TestGateway::start();
    gateway.create(["--name", "runs"]);
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo \"line $i\"; \
                  [ $((i % 10)) = 0 ] && sleep 0.1; done; exit 3";
    let id = gateway.ok(["exec", "--detach", "runs", "sh", "-c", script]);
    let follower = gateway.cli(["logs", "-f", &id]).spawn();
    follower.expect("line 20\n");
    gateway.kill_and_restart();
    let expected = Command::new("sh")
        .args(["-c", script])
        .output()
        .expect("sh");
    let ran = follower.wait();
    assert!(ran.stdout == expected.stdout, "{}", ran.text());
    assert_eq!(gateway.json(["inspect", &id])["exit_code"], 3);
}

/// From the moment on at which it has its place something of it may run: the next gateway has to look.
#[test]
fn what_was_being_started_when_the_gateway_died_is_not_said_never_to_have_run() {
    let mut gateway = TestGateway::builder()
        .config("[executions]\nrunning_max = 1")
        .start();
    gateway.create(["--name", "busy"]);
    let others = gateway.supervisors();
    gateway.create(["--name", "frozen"]);
    let supervisor = gateway.supervisors().into_iter();
    let supervisor: Vec<u32> = supervisor.filter(|pid| !others.contains(pid)).collect();
    assert_eq!(supervisor.len(), 1);
    let supervisor = Pid::from_raw(supervisor[0].cast_signed()).expect("a pid");
    let state = |gateway: &TestGateway, id: &str| gateway.json(["inspect", id])["state"].clone();
    let until = "while [ ! -e go ]; do sleep 0.05; done";
    let first = gateway.ok(["exec", "--detach", "busy", "sh", "-c", until]);
    wait::until_true("the first runs", || state(&gateway, &first) == "RUNNING");
    let second = gateway.ok(["exec", "--detach", "frozen", "echo", "ran"]);
    assert_eq!(state(&gateway, &second), "QUEUED");
    // Whoever is to start it does not answer.
    kill_process(supervisor, Signal::STOP).expect("freeze it");
    let go = gateway.home().file(gateway.user(), "go", "");
    gateway.ok(["cp", &go.to_string_lossy(), "busy:go"]);
    wait::until_true("it has its place", || {
        state(&gateway, &second) == "CLAIMING"
    });
    gateway.kill_and_restart();
    kill_process(supervisor, Signal::CONT).expect("thaw it");
    wait::until_true("it is known what became of it", || {
        !gateway.json(["inspect", &second])["end_time_unix_ms"].is_null()
    });
    let found = gateway.json(["inspect", &second]);
    match found["state"].as_str() {
        Some("SUCCEEDED") => assert_eq!(gateway.ok(["logs", &second]), "ran"),
        Some("LOST") => {}
        _ => panic!("{found:#}"),
    }
    wait::until_true("its sandbox is ready", || {
        state(&gateway, "frozen") == "READY"
    });
    assert_eq!(gateway.ok(["exec", "frozen", "echo", "works"]), "works");
}
