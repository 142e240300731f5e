//! A supervisor that says nothing for long is not dead: its sandbox is not given up while its driver
//! says that it runs.

use std::time::Duration;

use cofferdam_tests::{TestGateway, wait};
use rustix::process::{Pid, Signal, kill_process};

/// The gateway takes 20 s to find out that nobody is there.
const PATIENCE: Duration = Duration::from_secs(120);

/// A gateway that waits shortly for sessions that it has had.
fn gateway() -> TestGateway {
    TestGateway::builder()
        .config("[timeouts]\nsession = \"15s\"\n")
        .start()
}

/// Makes a sandbox with a file in it.
fn create(gateway: &TestGateway, name: &str) {
    gateway.create(["--name", name]);
    gateway.ok(["exec", name, "sh", "-c", "echo kept > /workspace/kept"]);
}

fn signal(supervisors: &[u32], signal: Signal) {
    for supervisor in supervisors {
        let pid = Pid::from_raw(supervisor.cast_signed()).expect("a pid");
        kill_process(pid, signal).expect("signal a supervisor");
    }
}

/// Waits until nothing new is started in it.
fn until_lost(gateway: &TestGateway, name: &str) {
    let found = wait::within(PATIENCE, || {
        let found = gateway.json(["inspect", name]);
        (found["reason"] == "SESSION_LOST").then_some(found)
    });
    let found = found.unwrap_or_else(|| panic!("{}", gateway.ok(["inspect", name])));
    assert_eq!(found["state"], "PROVISIONING", "{found:#}");
}

#[test]
fn a_frozen_supervisors_sandbox_is_waited_for_and_what_runs_in_it_goes_on() {
    let gateway = gateway();
    create(&gateway, "frozen");
    let script = "echo started; until [ -e /workspace/go ]; do sleep 0.1; done; echo done";
    let id = gateway.ok(["exec", "--detach", "frozen", "sh", "-c", script]);
    wait::until_true("it runs", || gateway.ok(["logs", &id]) == "started");
    let supervisors = gateway.supervisors();
    assert_eq!(supervisors.len(), 1);
    signal(&supervisors, Signal::STOP);
    // Whether it begins before the session is found to have ended, or after that.
    let copy = gateway.run(["cp", "frozen:/workspace/kept", "-"]);
    copy.exited(125);
    copy.says(["session ended"]);
    until_lost(&gateway, "frozen");
    let refused = gateway.run(["exec", "frozen", "true"]);
    refused.exited(125);
    refused.says(["SESSION_LOST", "session ended", "cofferdam stop frozen"]);
    assert_eq!(gateway.json(["inspect", &id])["state"], "RUNNING");
    signal(&supervisors, Signal::CONT);
    let is_ready = || gateway.json(["inspect", "frozen"])["state"] == "READY";
    let ready = wait::within(PATIENCE, || is_ready().then_some(()));
    assert!(ready.is_some(), "{}", gateway.ok(["inspect", "frozen"]));
    let kept = "cat /workspace/kept; touch /workspace/go";
    assert_eq!(gateway.ok(["exec", "frozen", "sh", "-c", kept]), "kept");
    wait::until_true("it has ended", || {
        gateway.json(["inspect", &id])["state"] == "SUCCEEDED"
    });
    assert_eq!(gateway.ok(["logs", &id]), "started\ndone");
}

#[test]
fn a_frozen_supervisors_sandbox_can_be_stopped_started_and_removed() {
    let gateway = gateway();
    create(&gateway, "stuck");
    gateway.create(["--name", "doomed"]);
    let supervisors = gateway.supervisors();
    assert_eq!(supervisors.len(), 2);
    signal(&supervisors, Signal::STOP);
    until_lost(&gateway, "stuck");
    until_lost(&gateway, "doomed");
    gateway.ok(["rm", "--force", "doomed"]);
    gateway.ok(["stop", "--grace", "1s", "stuck"]);
    gateway.ok(["start", "stuck"]);
    let kept = gateway.ok(["exec", "stuck", "cat", "/workspace/kept"]);
    assert_eq!(kept, "kept");
}
