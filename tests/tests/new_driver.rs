//! What `cargo xtask new-driver` writes: a driver that works before a line of it is changed.

use cofferdam_tests::engine::Engine;
use cofferdam_tests::skeleton::{self, NAME};
use cofferdam_tests::{TestGateway, need, wait};

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

#[test]
fn a_gateway_uses_it_as_any_other() {
    need!(Engine::Skeleton);
    let mut driver = skeleton::driver();
    driver.start();
    let gateway = TestGateway::builder()
        .config("default_driver = \"process\"")
        .driver_socket(NAME, &driver.socket())
        .start();
    wait::until_true("it is connected", || {
        gateway.driver(NAME)["state"] == "CONNECTED"
    });
    let run = ["run", "--driver", NAME];
    let script = "pwd; cat; exit 7";
    let ran = gateway
        .cli(run)
        .args(["--network", "open", "-i", "sh", "-c", script]);
    let ran = ran.stdin("in").run();
    assert!(ran.exited(7).ends_with("/workspace\nin"), "{}", ran.text());
    // What it cannot do is refused before it is asked.
    let refused = gateway.cli(run).args(["true"]).run();
    refused.exited(125);
    refused.says(["network", "none"]);
    let flags = ["--driver", NAME, "--network", "open", "--name", "box"];
    gateway.create(flags);
    driver.kill();
    driver.start();
    wait::until_true("it is connected again", || {
        gateway.driver(NAME)["state"] == "CONNECTED"
    });
    assert_eq!(
        gateway.ok(["exec", "box", "echo", "still here"]),
        "still here"
    );
    let shown = gateway.ok(["inspect", "box"]);
    assert!(shown.contains("NO ISOLATION"), "{shown}");
    gateway.ok(["rm", "box"]);
    drop(gateway);
    driver.finish();
}

#[test]
fn it_passes_the_conformance_suite() {
    need!(Engine::Skeleton);
    let driver = skeleton::driver();
    let trial = driver.try_all();
    trial.passed_all_but(&SKIPPED);
    driver.finish();
}
