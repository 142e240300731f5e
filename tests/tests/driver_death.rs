//! `kill -9` of the process driver: the gateway starts it again, and nobody else notices.

use std::process::Command;

use cofferdam_proto::gateway::v1::execute_event::Event;
use cofferdam_tests::client::{self, Stream};
use cofferdam_tests::{TestGateway, process, wait};

/// Numbered lines at a pace that outlives a few restarts of a driver.
const SCRIPT: &str = "i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo \"$i $(echo $i | cksum)\"; \
                      [ $((i % 20)) = 0 ] && sleep 0.1; done; exit 7";

fn expected() -> Vec<u8> {
    let output = Command::new("sh")
        .args(["-c", SCRIPT])
        .output()
        .expect("sh");
    assert_eq!(
        output.stdout.iter().filter(|byte| **byte == b'\n').count(),
        600
    );
    output.stdout
}

fn kill_driver(gateway: &TestGateway) -> i64 {
    let pid = gateway.driver("process")["pid"].as_i64().expect("a pid");
    let pid = u32::try_from(pid).expect("a pid");
    assert!(
        gateway.members().contains(&pid),
        "{} is not ours",
        process::describe(pid)
    );
    let target = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(target, rustix::process::Signal::KILL).expect("kill");
    wait::until("the driver is back", || {
        let driver = gateway.driver("process");
        let is_new = driver["pid"] != pid && driver["state"] == "CONNECTED";
        is_new.then(|| driver["connects"].as_i64().expect("a number"))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_execution_loses_and_doubles_nothing_when_the_driver_is_killed() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "survivor"]);
    let before = gateway.driver("process");
    let mut caller = client::connect(&gateway).await;
    let command = client::command("survivor", ["sh", "-c", SCRIPT]);
    let mut stream = Stream::start(&mut caller, command).await.expect("accepted");
    let mut text = Vec::new();
    let mut kills = 0;
    let execution = loop {
        match stream.next().await.expect("an event").expect("an end") {
            Event::Output(output) => text.extend_from_slice(&output.data),
            Event::Finished(execution) => break execution,
            _ => {}
        }
        if text.len() > 2000 * (kills + 1) && kills < 3 {
            kills += 1;
            kill_driver(&gateway);
        }
    };
    assert_eq!(kills, 3);
    assert_eq!(execution.exit_code, Some(7));
    assert!(text == expected(), "the output differs");
    let after = gateway.driver("process");
    assert_ne!(after["incarnation"], before["incarnation"]);
    // The record holds the same.
    assert!(
        gateway.run(["logs", stream.id()]).stdout == expected(),
        "the record differs"
    );
    assert_eq!(gateway.json(["inspect", "survivor"])["state"], "READY");
    assert_eq!(gateway.ok(["exec", "survivor", "echo", "alive"]), "alive");
}

#[test]
fn every_operation_works_on_sandboxes_of_a_killed_driver() {
    let gateway = TestGateway::start();
    for name in ["stays", "stops", "starts", "goes"] {
        gateway.create(["--name", name]);
    }
    gateway.ok(["exec", "starts", "touch", "kept"]);
    gateway.ok(["stop", "starts"]);
    let supervisors = gateway.supervisors();
    kill_driver(&gateway);
    assert_eq!(gateway.supervisors(), supervisors);
    let state = |name: &str| gateway.json(["inspect", name])["state"].clone();
    assert_eq!(
        (state("stays"), state("starts")),
        ("READY".into(), "STOPPED".into())
    );
    gateway.ok(["stop", "stops"]);
    assert_eq!(state("stops"), "STOPPED");
    gateway.ok(["start", "starts"]);
    wait::until_true("it is ready again", || state("starts") == "READY");
    assert_eq!(gateway.ok(["exec", "starts", "ls"]), "kept");
    gateway.ok(["rm", "goes"]);
    gateway.create(["--name", "new"]);
    let names = gateway.ok(["--json", "ls", "-a"]);
    assert_eq!(names.lines().count(), 4, "{names}");
}

#[test]
fn calls_made_while_the_driver_restarts_wait_instead_of_failing() {
    let gateway = TestGateway::start();
    let pid = gateway.driver("process")["pid"].as_i64().expect("a pid");
    let target = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).expect("a pid");
    rustix::process::kill_process(target, rustix::process::Signal::KILL).expect("kill");
    let calls: Vec<_> = (0..4)
        .map(|_| gateway.cli(["run", "echo", "came"]).spawn())
        .collect();
    for call in calls {
        assert_eq!(call.wait().success(), "came");
    }
}
