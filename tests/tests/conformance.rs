//! `cofferdam driver conformance` as people and pipelines use it: its lines, files and exit codes.
//! What its cases find is tried in tests/conformance.

use std::fs;
use std::path::Path;

use cofferdam_tests::User;
use cofferdam_tests::binaries::{self, Installation};
use cofferdam_tests::cli::Cli;
use cofferdam_tests::home::Home;
use serde_json::Value;

/// `cofferdam driver conformance --socket SOCKET`.
fn suite(home: &Home, socket: &Path) -> Cli {
    let cli = Cli::new(&Installation::built(), User::Tester, home);
    cli.args([
        "driver",
        "conformance",
        "--socket",
        &socket.to_string_lossy(),
    ])
}

/// Started by the suite itself: everything after this is the driver's.
fn with_driver(cli: Cli, socket: &Path, variant: Option<&str>) -> Cli {
    let program = binaries::own("cofferdam-test-fault-driver");
    let cli = cli.args(["--start-command", &program.to_string_lossy()]);
    let cli = cli.args(["--socket", &socket.to_string_lossy()]);
    cli.args(
        variant
            .into_iter()
            .flat_map(|variant| ["--variant", variant]),
    )
}

fn cases<'a>(report: &'a Value, outcome: &str) -> Vec<&'a str> {
    let cases = report["cases"].as_array().into_iter().flatten();
    let ended = cases.filter(|case| case["outcome"] == outcome);
    ended.filter_map(|case| case["id"].as_str()).collect()
}

#[test]
fn a_driver_that_is_right_gets_a_report_for_people_and_for_programs() {
    let home = Home::new(User::Tester);
    let (socket, junit) = (home.join("driver.sock"), home.join("junit.xml"));
    let selected = "core.create.idempotent,core.ending.no-image,faults.restart.incarnation";
    let ran = suite(&home, &socket).args(["--case", selected, "--json", "--bench"]);
    let ran = ran.args(["--junit", &junit.to_string_lossy()]);
    let ran = with_driver(ran, &socket, None).run();
    let report: Value = serde_json::from_str(&ran.success()).expect("one JSON object");
    assert_eq!(report["format"], "cofferdam-conformance/1");
    assert_eq!(report["driver"]["name"], "fake");
    let passed = ["core.create.idempotent", "faults.restart.incarnation"];
    assert_eq!(cases(&report, "passed"), passed);
    assert_eq!(cases(&report, "skipped"), ["core.ending.no-image"]);
    let measured = report["bench"]["latencies"].as_array().expect("latencies");
    let what: Vec<_> = measured.iter().map(|one| &one["what"]).collect();
    assert_eq!(what, ["create", "ready", "exec", "delete"]);
    let junit = fs::read_to_string(junit).expect("the JUnit file");
    for part in [
        "<testsuite name=\"core\" tests=\"2\" failures=\"0\" errors=\"0\" skipped=\"1\"",
        "<testcase classname=\"faults.restart\" name=\"incarnation\"",
        "<skipped message=\"the driver takes no images\"/>",
    ] {
        assert!(junit.contains(part), "{part} is not in\n{junit}");
    }
    assert!(!socket.exists(), "the driver has ended with the run");
}

#[test]
fn a_driver_that_breaks_a_rule_is_told_which_and_how_to_mend_it() {
    let home = Home::new(User::Tester);
    let socket = home.join("driver.sock");
    let ran = suite(&home, &socket).args(["--case", "core.create.idempotent,core.create.runs"]);
    let ran = with_driver(ran, &socket, Some("non_idempotent_create")).run();
    let said = ran.exited(1);
    for part in [
        "PASS  core.create.runs",
        "FAIL  core.create.idempotent",
        "contract  CreateSandbox: Idempotent on `sandbox_id`",
        "seen      CreateSandbox answered ALREADY_EXISTS",
        "fix       look the id up first",
        "1 passed, 1 failed, 0 skipped",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
}

#[test]
fn a_measurement_that_ends_early_is_no_success() {
    let home = Home::new(User::Tester);
    let socket = home.join("driver.sock");
    let script = r#"{"rules": [{"rpc": "CreateSandbox", "nth": 3,
                                "fault": {"fail": {"code": "INTERNAL", "message": "worn out"}}}]}"#;
    let script = home.file(User::Tester, "script.json", script);
    let ran = suite(&home, &socket).args(["--case", "core.handshake", "--bench"]);
    let ran = with_driver(ran, &socket, None);
    let ran = ran.args(["--script", &script.to_string_lossy()]).run();
    let said = ran.exited(1);
    assert!(said.contains(" 0 failed, 0 skipped"), "{said}");
    let trouble = "the measurement ended early after 1 rounds: CreateSandbox answered INTERNAL";
    assert!(said.contains(trouble), "{said}");
}

#[test]
fn what_could_not_be_tried_is_no_success() {
    let home = Home::new(User::Tester);
    let nowhere = home.join("nowhere.sock");
    let ran = suite(&home, &nowhere).run();
    ran.exited(125);
    ran.says(["there is no socket", "start the driver first"]);
    let ran = suite(&home, &nowhere).args(["--case", "core.nonsense"]);
    let ran = ran.run();
    ran.exited(125);
    ran.says(["there is no case or group \"core.nonsense\"", "--list"]);
    let ran = suite(&home, &nowhere).args(["--tier", "faults", "--case", "core.create"]);
    let ran = ran.run();
    ran.exited(125);
    ran.says(["have no case in common"]);
    let ran = suite(&home, &nowhere).args(["--start-command", "/bin/false"]);
    let ran = ran.run();
    ran.exited(125);
    ran.says(["before it listened"]);
}

#[test]
fn a_tier_of_which_the_driver_claims_nothing_is_no_success() {
    let home = Home::new(User::Tester);
    let socket = home.join("driver.sock");
    let ran = suite(&home, &socket).args(["--tier", "command,resources"]);
    let ran = with_driver(ran, &socket, None).run();
    ran.exited(125);
    ran.says(["nothing could be tried", "each says why"]);
}

#[test]
fn the_list_of_cases_needs_no_driver() {
    let home = Home::new(User::Tester);
    let cli = Cli::new(&Installation::built(), User::Tester, &home);
    let listed = cli
        .args(["driver", "conformance", "--list"])
        .run()
        .success();
    let rows: Vec<_> = listed.lines().skip(2).collect();
    for tier in [
        "core",
        "interactive",
        "command",
        "resources",
        "snapshot",
        "faults",
    ] {
        let is_there = rows
            .iter()
            .any(|row| row.starts_with(&format!("| `{tier}.")));
        assert!(is_there, "{tier} is not in\n{listed}");
    }
    assert!(rows.len() > 100, "{} cases", rows.len());
}
