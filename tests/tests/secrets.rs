//! A secret of a workload is seen by that workload, and by no other process, file or log.

use std::fs;
use std::path::Path;

use cofferdam_tests::{TestGateway, long_time, process};

const VARIABLE: &str = "HARBOUR";

/// One that nothing else on this host can hold.
fn secret() -> String {
    format!("whispered-{}-{}", std::process::id(), long_time())
}

/// Prints how long the secret is, then stays. The marker is how to find it.
fn script(marker: &str) -> String {
    format!("echo length ${{#{VARIABLE}}}; exec sleep {marker}")
}

/// Every process of the host that has the secret in its environment or its arguments, but `known`.
#[track_caller]
fn nobody_else_has(secret: &str, marker: &str, known: &[u32]) {
    let holds = |pid: &u32, file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        contains(&bytes, secret)
    };
    let mut seen_by_workload = false;
    for pid in process::all() {
        let has = holds(&pid, "environ") || holds(&pid, "cmdline");
        if !has || known.contains(&pid) {
            continue;
        }
        let command = process::command_line(pid);
        let is_workload = command == format!("sleep {marker}");
        assert!(is_workload, "{}", process::describe(pid));
        seen_by_workload = true;
    }
    // Otherwise nothing was looked for.
    assert!(seen_by_workload, "the workload has no secret");
}

fn contains(bytes: &[u8], secret: &str) -> bool {
    let secret = secret.as_bytes();
    bytes.windows(secret.len()).any(|window| window == secret)
}

/// Files only: a socket has nothing to read, and what goes while it is looked at is gone.
#[track_caller]
fn no_file_below_has(directory: &Path, secret: &str) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            files += no_file_below_has(&entry.path(), secret);
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            assert!(!contains(&bytes, secret), "{}", entry.path().display());
            files += 1;
        }
    }
    files
}

#[test]
fn a_secret_of_an_embedded_run_reaches_its_workload_alone() {
    // Only for its directories: the gateway that is meant is the one in the tool itself.
    let gateway = TestGateway::start();
    let (secret, marker) = (secret(), long_time());
    let script = script(&marker);
    let words = ["run", "--embedded", "--secret-env", VARIABLE, "--"];
    let words = words.into_iter().chain(["sh", "-c", &script]);
    let running = gateway
        .cli(words)
        .env(VARIABLE, &secret)
        .env("COFFERDAM_LOG", "debug")
        .spawn();
    running.expect(&format!("length {}\n", secret.len()));
    // The caller's own process was given it by its caller.
    nobody_else_has(&secret, &marker, &[running.pid()]);
    assert!(no_file_below_has(gateway.home().path(), &secret) > 0);
    running.signal(rustix::process::Signal::TERM);
    let ran = running.wait();
    assert!(ran.stderr.contains("sandbox state"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(&secret), "{}", ran.stderr);
    assert!(no_file_below_has(gateway.home().path(), &secret) > 0);
}

#[test]
fn a_secret_given_to_a_service_reaches_the_workload_alone() {
    let gateway = TestGateway::builder().flag("--log", "debug").start();
    let (secret, marker) = (secret(), long_time());
    let script = script(&marker);
    gateway.create(["--name", "vault"]);
    let words = ["exec", "--detach", "--secret-env", VARIABLE, "vault", "--"];
    let words = words.into_iter().chain(["sh", "-c", &script]);
    let ran = gateway.cli(words).env(VARIABLE, &secret).run();
    let id = ran.success();
    let follow = gateway.cli(["logs", "--follow", &id]).spawn();
    follow.expect(&format!("length {}\n", secret.len()));
    nobody_else_has(&secret, &marker, &[]);
    gateway.ok(["cancel", &id]);
    follow.wait();
    let inspected = gateway.ok(["--json", "inspect", &id]);
    assert!(inspected.contains(VARIABLE), "{inspected}");
    assert!(!inspected.contains(&secret), "{inspected}");
    assert!(gateway.log().contains(&id));
    assert!(!gateway.log().contains(&secret));
    assert!(no_file_below_has(gateway.home().path(), &secret) > 0);
}
