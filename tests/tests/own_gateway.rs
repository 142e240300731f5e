//! An ordinary user's own gateway: no flags, no configuration, no privileges.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use cofferdam_tests::engine::Engine;
use cofferdam_tests::{TestGateway, User, need};

#[test]
fn the_command_line_tool_finds_the_gateway_where_it_listens_by_itself() {
    let gateway = TestGateway::builder()
        .user(User::Ordinary)
        .without_settings()
        .start();
    // Nobody says where.
    let ran = gateway
        .cli(["create", "--name", "found"])
        .without_env("COFFERDAM_GATEWAY")
        .run();
    ran.success();
    assert_eq!(gateway.ok(["exec", "found", "echo", "hello"]), "hello");
    let doctor = gateway
        .cli(["doctor"])
        .without_env("COFFERDAM_GATEWAY")
        .run();
    assert!(
        doctor.text().contains("sandbox: a trial"),
        "{}\n{}",
        doctor.text(),
        doctor.stderr
    );
}

#[test]
fn without_a_login_session_both_meet_in_a_private_directory() {
    need!(Engine::Root);
    let gateway = TestGateway::builder()
        .user(User::loner())
        .without_session()
        .start();
    let nobody_says_where = |args: &[&str]| {
        gateway
            .cli(args)
            .without_env("COFFERDAM_GATEWAY")
            .without_env("XDG_RUNTIME_DIR")
            .run()
    };
    assert_eq!(
        nobody_says_where(&["driver", "ls", "-q"]).success(),
        "process"
    );
    // Where others can put a socket of theirs, none is trusted.
    let chmod = |mode| {
        fs::set_permissions(gateway.runtime_dir(), fs::Permissions::from_mode(mode))
            .expect("chmod");
    };
    chmod(0o777);
    let refused = nobody_says_where(&["ls"]);
    chmod(0o755);
    refused.exited(125);
    let place = gateway.socket().display().to_string();
    refused.says([
        place.as_str(),
        "others may write there (mode 777), so not used",
    ]);
}

#[test]
fn every_driver_says_what_it_found_and_how_to_mend_it() {
    let gateway = TestGateway::builder().user(User::Ordinary).start();
    let doctor = gateway.run(["--json", "doctor"]);
    let about = doctor.text();
    let driver = gateway.driver("process");
    let checks = driver["fingerprint"]["checks"].as_array().expect("a list");
    assert!(!checks.is_empty());
    for check in checks {
        let id = check["id"].as_str().expect("an id");
        assert!(
            about.contains(id),
            "{id} is not in what doctor says:\n{about}"
        );
        assert!(
            check["result"] == "PASSED" || !check["fix"].is_null(),
            "no fix for {check}"
        );
    }
}

#[test]
fn an_idle_supervisor_costs_little_and_spies_on_nobody() {
    let gateway = TestGateway::start();
    gateway.create(["--name", "idle"]);
    let supervisors = gateway.supervisors();
    assert_eq!(supervisors.len(), 1);
    let peak = cofferdam_tests::process::memory_peak_bytes(supervisors[0]).expect("it lives");
    assert!(peak <= 8 << 20, "{} KiB", peak >> 10);
}
