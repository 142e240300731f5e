//! A command whose sandbox is ended under it has not succeeded, nor failed, by itself: whatever it
//! exits with, what was asked of its sandbox says why it ended.

use std::time::Duration;

use cofferdam_tests::{TestGateway, wait};
use serde_json::Value;

/// A lifetime, and as much again.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a command does about SIGTERM.
const TEMPERS: [(&str, &str); 3] = [
    ("obedient", "trap 'exit 0' TERM; "),
    ("mortal", ""),
    ("deaf", "trap '' TERM; "),
];

/// Says that it runs, and goes on.
fn script(temper: &str) -> String {
    format!("{temper}echo started; while :; do sleep 0.1; done")
}

/// One of each temper in this sandbox, all of them running: their names and ids.
fn started(gateway: &TestGateway, sandbox: &str) -> Vec<(&'static str, String)> {
    let start = |(name, temper): (&'static str, &str)| {
        let id = gateway.ok(["exec", "--detach", sandbox, "sh", "-c", &script(temper)]);
        (name, id)
    };
    let all: Vec<_> = TEMPERS.into_iter().map(start).collect();
    for (name, id) in &all {
        wait::until_true(&format!("the {name} one runs"), || {
            gateway.ok(["logs", id]) == "started"
        });
    }
    all
}

/// Its record once it has ended.
fn ended(gateway: &TestGateway, id: &str) -> Value {
    let ended = wait::within(PATIENCE, || {
        let found = gateway.json(["inspect", id]);
        let state = found["state"].as_str().expect("a state");
        let is_running = ["QUEUED", "CLAIMING", "RUNNING"].contains(&state);
        (!is_running).then_some(found)
    });
    ended.unwrap_or_else(|| panic!("{id} has not ended: {}", gateway.ok(["inspect", id])))
}

#[track_caller]
fn all_ended(gateway: &TestGateway, all: &[(&str, String)], state: &str, reason: &str) {
    for (name, id) in all {
        let found = ended(gateway, id);
        assert_eq!(found["state"], state, "{name}: {found:#}");
        assert_eq!(found["reason"], reason, "{name}: {found:#}");
        // Only the obedient one can have exited, and that with 0.
        let is_obedient = *name == "obedient";
        let code = &found["exit_code"];
        let is_possible = code.is_null() || (is_obedient && *code == 0);
        assert!(is_possible, "{name}: {found:#}");
    }
}

#[test]
fn a_stop_cancels_what_runs_however_it_takes_it() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "halted"]);
    let early = gateway.ok(["exec", "--detach", "halted", "true"]);
    assert_eq!(ended(&gateway, &early)["state"], "SUCCEEDED");
    let all = started(&gateway, "halted");
    let attached = script("trap 'exit 0' TERM; ");
    let attached = gateway
        .cli(["exec", "halted", "sh", "-c", &attached])
        .spawn();
    attached.expect("started\n");
    gateway.ok(["stop", "--grace", "3s", "halted"]);
    all_ended(&gateway, &all, "CANCELED", "SANDBOX_STOPPED");
    let attached = attached.wait();
    attached.exited(125);
    attached.says(["its sandbox was stopped", "cofferdam start"]);
    // What had ended before stays what it was.
    let early = gateway.json(["inspect", &early]);
    assert_eq!(early["state"], "SUCCEEDED");
    gateway.ok(["start", "halted"]);
    gateway.ok(["exec", "halted", "true"]);
}

#[test]
fn a_stop_cancels_a_one_shot() {
    let gateway = TestGateway::start();
    let obedient = script("trap 'exit 0' TERM; ");
    let id = gateway.ok(["run", "--detach", "sh", "-c", &obedient]);
    wait::until_true("it runs", || gateway.ok(["logs", &id]) == "started");
    let found = gateway.json(["inspect", &id]);
    let sandbox = found["sandbox_id"].as_str().expect("its sandbox");
    // It is removed as soon as its execution has ended, which may be before the stop's answer.
    gateway.run(["stop", sandbox]);
    let found = ended(&gateway, &id);
    assert_eq!(found["state"], "CANCELED", "{found:#}");
    assert_eq!(found["reason"], "SANDBOX_STOPPED", "{found:#}");
}

#[test]
fn a_delete_cancels_what_runs_however_it_takes_it() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "razed"]);
    let all = started(&gateway, "razed");
    gateway.ok(["rm", "--force", "razed"]);
    all_ended(&gateway, &all, "CANCELED", "SANDBOX_DELETED");
}

#[test]
fn the_end_of_a_lifetime_is_a_time_limit_however_it_is_taken() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "brief", "--lifetime", "30s"]);
    let all = started(&gateway, "brief");
    all_ended(&gateway, &all, "TIMED_OUT", "SANDBOX_EXPIRED");
}
