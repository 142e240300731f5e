//! The driver in Python that was written from the contract alone: docs/examples/python-driver.
//!
//! It isolates nothing, so every sandbox here asks for the open network: that is refused otherwise.

use std::fs;

use cofferdam_tests::engine::Engine;
use cofferdam_tests::lasting::LastingDriver;
use cofferdam_tests::{TestGateway, long_time, need, python, wait};
use rustix::process::Signal;

/// What every sandbox of this driver is asked for with.
const FLAGS: [&str; 4] = ["--driver", "py", "--network", "open"];

/// What it does not claim, of the suite's cases.
const SKIPPED: [&str; 7] = [
    "core.images",
    "core.delete.paused",
    "core.ending.no-image",
    "interactive.stats",
    "command",
    "resources",
    "snapshot",
];

fn start() -> (LastingDriver, TestGateway) {
    let mut driver = python::driver();
    driver.start();
    let gateway = TestGateway::builder()
        .config("default_driver = \"process\"")
        .driver_socket("py", &driver.socket())
        .start();
    wait::until_true("it is connected", || {
        gateway.driver("py")["state"] == "CONNECTED"
    });
    (driver, gateway)
}

fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    FLAGS.iter().chain(more).copied().collect()
}

/// First the gateway's own checks, then those of the driver.
fn end(driver: LastingDriver, gateway: TestGateway) {
    drop(gateway);
    driver.finish();
}

#[test]
fn commands_run_as_with_any_driver() {
    need!(Engine::Python);
    let (driver, gateway) = start();
    let run = |args: &[&str]| gateway.cli(["run"]).args(flags(args));
    let script = "cat; echo err >&2; exit 7";
    let ran = run(&["-i", "sh", "-c", script]).stdin("in").run();
    assert_eq!(ran.exited(7), "in");
    assert_eq!(ran.stderr, "err\n");
    run(&["no-such-program"]).run().exited(127);
    let forever = long_time();
    let tree = format!("setsid sleep {forever} & sleep {forever}");
    let ran = run(&["--timeout", "1s", "sh", "-c", &tree]).run();
    ran.exited(124);
    wait::until_true("the whole tree is gone", || {
        driver.members_with(&forever).is_empty()
    });
    let large = "x".repeat(3 << 20);
    let ran = run(&["-i", "sh", "-c", "cat | cat"])
        .stdin(large.clone())
        .run();
    assert!(ran.success() == large, "the output differs");
    end(driver, gateway);
}

#[test]
fn files_travel_and_nobody_is_told_that_it_isolates() {
    need!(Engine::Python);
    let (driver, gateway) = start();
    gateway.create(flags(&["--name", "box"]));
    let file = gateway.home().file(gateway.user(), "file", "kept\n");
    let copied = gateway.home().join("copied");
    gateway.ok(["cp", &file.to_string_lossy(), "box:there"]);
    assert_eq!(gateway.ok(["exec", "box", "cat", "there"]), "kept");
    gateway.ok(["cp", "box:there", &copied.to_string_lossy()]);
    assert_eq!(fs::read_to_string(copied).expect("read"), "kept\n");
    let shown = gateway.ok(["inspect", "box"]);
    for weakness in ["NO ISOLATION", "The memory limit is not enforced"] {
        assert!(shown.contains(weakness), "{weakness:?} is not in\n{shown}");
    }
    let doctor = gateway.run(["doctor"]);
    assert!(doctor.text().contains("for learning"), "{}", doctor.text());
    let refused = gateway.run(["run", "--driver", "py", "true"]);
    refused.exited(125);
    refused.says(["none"]);
    let isolated = flags(&["--isolation", "namespaces", "true"]);
    gateway.cli(["run"]).args(isolated).run().exited(125);
    end(driver, gateway);
}

#[test]
fn its_sandboxes_outlive_it() {
    need!(Engine::Python);
    let (mut driver, gateway) = start();
    for name in ["stays", "stopped", "goes"] {
        gateway.create(flags(&["--name", name]));
    }
    gateway.ok(["exec", "stopped", "touch", "kept"]);
    gateway.ok(["stop", "stopped"]);
    let script = "i=0; while read line; do i=$((i+1)); echo $i; done; exit 3";
    let call = gateway.cli(["exec", "-i", "stays", "sh", "-c", script]);
    let mut call = call.spawn();
    call.type_in("one\n");
    call.expect("1\n");
    driver.kill();
    // Nobody needs the driver for what runs already.
    call.type_in("two\n");
    call.expect("2\n");
    driver.start();
    wait::until_true("it is connected again", || {
        gateway.driver("py")["state"] == "CONNECTED"
    });
    call.type_in("three\n");
    call.end_stdin();
    assert_eq!(call.wait().exited(3), "1\n2\n3");
    let state = |name: &str| gateway.json(["inspect", name])["state"].clone();
    wait::until_true("all are found again", || {
        state("stays") == "READY" && state("goes") == "READY" && state("stopped") == "STOPPED"
    });
    gateway.ok(["start", "stopped"]);
    wait::until_true("it is ready again", || state("stopped") == "READY");
    assert_eq!(gateway.ok(["exec", "stopped", "ls"]), "kept");
    gateway.ok(["stop", "stays"]);
    gateway.ok(["rm", "goes"]);
    end(driver, gateway);
}

#[test]
fn deadlines_hold_when_driver_and_gateway_are_dead() {
    need!(Engine::Python);
    let (mut driver, mut gateway) = start();
    let id = gateway.create(flags(&["--lifetime", "15s"]));
    let forever = long_time();
    let tree = format!("setsid sleep {forever} & sleep {forever}");
    gateway.ok(["exec", "-d", &id, "sh", "-c", &tree]);
    wait::until_true("both run", || driver.members_with(&forever).len() >= 2);
    driver.kill();
    gateway.signal(Signal::KILL);
    gateway.wait_end();
    wait::until_true("nothing of the sandbox runs", || {
        driver.members_with(&forever).is_empty() && driver.members_with("keeper.py").is_empty()
    });
    driver.start();
    gateway.restart();
    wait::until_true("it is gone", || gateway.run(["inspect", &id]).code() != 0);
    end(driver, gateway);
}

#[test]
fn a_gateway_starts_it_itself() {
    need!(Engine::Python);
    let driver = python::driver();
    let program = python::program(&driver);
    let gateway = TestGateway::builder()
        .config("default_driver = \"process\"")
        .config("[drivers.process]")
        .config(&format!("[drivers.py]\npath = {program:?}"))
        .start();
    let run = gateway
        .cli(["run"])
        .args(flags(&["echo", "from the gateway"]));
    assert_eq!(run.run().success(), "from the gateway");
    end(driver, gateway);
}

#[test]
fn it_passes_the_conformance_suite() {
    need!(Engine::Python);
    let driver = python::driver();
    let trial = driver.try_all();
    trial.passed_all_but(&SKIPPED);
    driver.finish();
}
