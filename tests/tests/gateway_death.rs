//! `kill -9` of the gateway: what it had taken on goes on, and the next one finds it.

use std::process::Command;

use cofferdam_tests::{TestGateway, wait};

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
