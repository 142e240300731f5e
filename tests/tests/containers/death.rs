//! `kill -9` of the driver, at any time: no container is left over, none is made twice.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cofferdam_tests::container::{IMAGE, Kind};
use cofferdam_tests::{TestGateway, wait};
use rustix::process::{Pid, Signal};

use super::{Contained, for_each_engine};

for_each_engine!(
    a_driver_that_is_killed_loses_no_sandbox,
    every_operation_works_after_the_driver_was_killed,
    a_driver_that_is_killed_while_it_makes_a_sandbox_leaves_one_or_none,
    a_driver_that_is_killed_while_it_removes_a_sandbox_leaves_none,
    kills_under_load_leave_no_container,
);

/// Of a driver that runs and is connected.
fn pid(gateway: &TestGateway, kind: Kind) -> Pid {
    wait::until("the driver is there", || {
        let driver = gateway.driver(kind.name());
        let pid = driver["pid"].as_i64().filter(|pid| *pid > 0)?;
        (driver["state"] == "CONNECTED")
            .then(|| Pid::from_raw(i32::try_from(pid).ok()?))
            .flatten()
    })
}

fn kill(gateway: &TestGateway, kind: Kind) {
    let pid = pid(gateway, kind);
    let is_ours = gateway
        .members()
        .contains(&pid.as_raw_nonzero().get().cast_unsigned());
    assert!(is_ours, "{pid:?} is not ours");
    rustix::process::kill_process(pid, Signal::KILL).expect("kill");
}

fn kill_and_wait(contained: &Contained) {
    let kind = contained.engine.kind();
    let before = pid(contained.gateway(), kind);
    kill(contained.gateway(), kind);
    wait::until_true("the driver is back", || {
        let driver = contained.gateway().driver(kind.name());
        let is_new = driver["pid"] != before.as_raw_nonzero().get();
        is_new && driver["state"] == "CONNECTED"
    });
}

fn a_driver_that_is_killed_loses_no_sandbox(kind: Kind) {
    let contained = Contained::new(kind);
    let id = contained.create("survivor", &[]);
    let before = contained.container(&id)["State"]["Pid"].clone();
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; sleep 0.02; done";
    let running = contained
        .gateway()
        .cli(["exec", "survivor", "sh", "-c", script])
        .spawn();
    running.expect("10\n");
    kill_and_wait(&contained);
    let text = running.wait().success();
    let wanted: Vec<String> = (1..=200).map(|number| number.to_string()).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(contained.container(&id)["State"]["Pid"], before);
}

fn every_operation_works_after_the_driver_was_killed(kind: Kind) {
    let contained = Contained::new(kind);
    for name in ["stays", "stops", "starts", "goes"] {
        contained.create(name, &[]);
    }
    contained.sh("starts", "touch kept");
    contained.gateway().ok(["stop", "starts"]);
    kill_and_wait(&contained);
    let state = |name: &str| contained.gateway().json(["inspect", name])["state"].clone();
    assert_eq!(
        (state("stays"), state("starts")),
        ("READY".into(), "STOPPED".into())
    );
    contained.gateway().ok(["stop", "stops"]);
    assert_eq!(state("stops"), "STOPPED");
    contained.gateway().ok(["start", "starts"]);
    wait::until_true("it is ready again", || state("starts") == "READY");
    assert_eq!(contained.sh("starts", "ls"), "kept");
    contained.gateway().ok(["rm", "goes"]);
    contained.create("new", &[]);
    assert_eq!(contained.sh("new", "echo here"), "here");
}

/// Killed a little later each time, so that every step of the making is met.
fn a_driver_that_is_killed_while_it_makes_a_sandbox_leaves_one_or_none(kind: Kind) {
    let contained = Contained::new(kind);
    for step in 0..8 {
        let name = format!("made-{step}");
        let create = ["create", "--image", IMAGE, "--name", &name];
        let creating = contained.gateway().cli(create).spawn();
        wait::a_while(Duration::from_millis(40 * step));
        kill_and_wait(&contained);
        let created = creating.wait();
        assert_eq!(created.code(), 0, "{name}: {}", created.stderr);
        let id = created.text().trim().to_owned();
        assert_eq!(contained.sh(&name, "echo alive"), "alive");
        assert_eq!(contained.engine.of_sandbox(&id).len(), 1, "{name}");
        contained.gateway().ok(["rm", "--force", &name]);
        assert_eq!(contained.engine.of_sandbox(&id), [""; 0], "{name}");
    }
}

fn a_driver_that_is_killed_while_it_removes_a_sandbox_leaves_none(kind: Kind) {
    let contained = Contained::new(kind);
    for step in 0..5 {
        let name = format!("removed-{step}");
        let id = contained.create(&name, &[]);
        let removing = contained.gateway().cli(["rm", "--force", &name]).spawn();
        wait::a_while(Duration::from_millis(35 * step));
        kill_and_wait(&contained);
        // It may have been told only that it will be done.
        let code = removing.wait().code();
        assert!([0, 125].contains(&code), "{code}");
        wait::until_true("its container is gone", || {
            contained.engine.of_sandbox(&id).is_empty()
        });
    }
}

/// How often the driver is killed while others work with it, unless `COFFERDAM_TEST_KILLS` says so.
const KILLS: u64 = 10;

fn kills() -> u64 {
    match std::env::var("COFFERDAM_TEST_KILLS") {
        Ok(text) => text.parse().expect("COFFERDAM_TEST_KILLS is a number"),
        Err(_) => KILLS,
    }
}

fn kills_under_load_leave_no_container(kind: Kind) {
    let contained = Contained::new(kind);
    let is_over = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| run_until(&contained, &is_over)))
            .collect();
        for number in 0..kills() {
            wait::a_while(Duration::from_millis(
                37 * (number % 8) + 411 * (number % 3),
            ));
            kill_and_wait(&contained);
        }
        is_over.store(true, Ordering::Relaxed);
        let ran = lanes.into_iter().map(|lane| lane.join().expect("a lane"));
        ran.sum::<usize>()
    });
    // Not by a macro: those are shown for failed tests only.
    let _ = writeln!(std::io::stderr(), "{} kills, {ran} commands", kills());
    let all = contained.gateway().ok(["--json", "ps", "--all"]);
    for line in all.lines() {
        let execution: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let sandbox = execution["sandbox_id"].as_str().expect("an id");
        wait::until_true("its container is gone", || {
            contained.engine.of_sandbox(sandbox).is_empty()
        });
    }
}

/// One command after the other, each in a sandbox of its own; how many succeeded, which at least one
/// does when nobody kills any more. The others have to say that it was not the command.
fn run_until(contained: &Contained, is_over: &AtomicBool) -> usize {
    let mut succeeded = 0;
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        let ran = contained
            .gateway()
            .run(["run", "--image", IMAGE, "echo", "came"]);
        match ran.code() {
            0 => assert_eq!(ran.text(), "came\n"),
            code => assert_eq!(code, 125, "{}", ran.stderr),
        }
        succeeded += usize::from(ran.code() == 0);
        if is_last {
            assert!(succeeded > 0, "{}", ran.stderr);
            return succeeded;
        }
    }
}
