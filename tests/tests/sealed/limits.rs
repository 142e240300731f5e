//! Limits hold for the whole sandbox, and say so when they bite.

use std::time::{Duration, Instant};

use cofferdam_tests::engine::{self, Engine};
use cofferdam_tests::{TestGateway, User, long_time, process, wait};

use super::{Sealed, for_each_user};

for_each_user!(
    the_memory_limit_ends_in_a_typed_reason_and_the_sandbox_lives_on,
    a_kill_for_want_of_memory_is_not_blamed_on_a_later_command,
    a_fork_bomb_is_contained_and_the_gateway_answers,
    the_cpu_quota_holds,
    a_supervisor_does_not_wait_for_its_programs_cpu_time,
    tmp_and_workspace_are_bounded
);

fn the_memory_limit_ends_in_a_typed_reason_and_the_sandbox_lives_on(user: User) {
    let Some(sealed) = Sealed::limited(user, &["--memory", "96M"]) else {
        return;
    };
    let gateway = &sealed.gateway;
    let ran = gateway.run(["--json", "exec", "sealed", "tail", "/dev/zero"]);
    ran.exited(128 + 9);
    let result = ran.result();
    assert_eq!(result["execution"]["state"], "FAILED", "{result}");
    assert_eq!(result["execution"]["reason"], "OOM_KILLED", "{result}");
    assert_eq!(gateway.json(["inspect", "sealed"])["state"], "READY");
    // In a child of the command, too; and memory that is no process's counts as well.
    let ran = gateway.run([
        "--json",
        "exec",
        "sealed",
        "sh",
        "-c",
        "tail /dev/zero; exit $?",
    ]);
    assert_eq!(
        ran.result()["execution"]["reason"],
        "OOM_KILLED",
        "{}",
        ran.stderr
    );
    // One that was killed for another reason is not said to have run out of memory.
    let ran = gateway.run(["--json", "exec", "sealed", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(ran.result()["execution"]["reason"], "SIGNALED");
    // Files are memory as well, but never all of it: whoever fills everything can still tidy up.
    let fill = "cat /dev/zero > a; cat /dev/zero > /tmp/a; cat /dev/zero > /dev/shm/a";
    let ran = gateway.run(["exec", "sealed", "sh", "-c", fill]);
    assert_eq!(
        ran.stderr.matches("No space left").count(),
        3,
        "{}",
        ran.stderr
    );
    gateway.ok(["exec", "sealed", "rm", "a", "/tmp/a", "/dev/shm/a"]);
    assert_eq!(gateway.json(["inspect", "sealed"])["state"], "READY");
}

/// Of a command that ends well although it has lost a child, nobody asks why it ended.
fn a_kill_for_want_of_memory_is_not_blamed_on_a_later_command(user: User) {
    let Some(sealed) = Sealed::limited(user, &["--memory", "96M"]) else {
        return;
    };
    let gateway = &sealed.gateway;
    assert_eq!(sealed.sh("tail /dev/zero; echo $?"), "137");
    let ran = gateway.run(["--json", "exec", "sealed", "sh", "-c", "kill -KILL $$"]);
    ran.exited(128 + 9);
    assert_eq!(
        ran.result()["execution"]["reason"],
        "SIGNALED",
        "{}",
        ran.stderr
    );
}

fn a_fork_bomb_is_contained_and_the_gateway_answers(user: User) {
    const PIDS: usize = 64;
    let Some(sealed) = Sealed::limited(user, &["--pids", "64"]) else {
        return;
    };
    let gateway = &sealed.gateway;
    let marker = long_time();
    // A shell that cannot fork ends; the outer one starts the next, so the sandbox stays full.
    let bomb =
        format!("while :; do ( while :; do sleep {marker} & done ) 2>/dev/null; done 2>/dev/null");
    let running = gateway.cli(["exec", "sealed", "sh", "-c", &bomb]).spawn();
    wait::until_true("the bomb has gone off", || {
        process::with_argument(&marker).len() > PIDS / 2
    });
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let count = process::with_argument(&marker).len();
        assert!(count <= PIDS, "{count} processes");
        gateway.ok(["ls"]);
    }
    gateway.ok(["run", "true"]);
    gateway.ok(["rm", "--force", "sealed"]);
    assert_eq!(process::with_argument(&marker), [] as [u32; 0]);
    running.wait();
}

fn the_cpu_quota_holds(user: User) {
    let Some(sealed) = Sealed::limited(user, &["--cpus", "0.5"]) else {
        return;
    };
    holds_to_half_a_cpu(&sealed);
    // A sandbox that was killed is allowed no more when it is started again.
    sealed.gateway.ok(["stop", "--grace", "1ms", "sealed"]);
    sealed.gateway.ok(["start", "sealed"]);
    holds_to_half_a_cpu(&sealed);
}

#[track_caller]
fn holds_to_half_a_cpu(sealed: &Sealed) {
    let found = sealed.measure(&["burn", "3000"]);
    let (cpu, wall) = (
        found["cpu_ms"].as_f64().unwrap(),
        found["wall_ms"].as_f64().unwrap(),
    );
    // Two threads would take twice the wall's time. A period's worth may be left over at each end.
    assert!(
        cpu <= 0.5 * wall * 1.15 + 150.0,
        "{cpu} ms of cpu in {wall} ms"
    );
    assert!(cpu >= 100.0, "{cpu} ms of cpu in {wall} ms");
}

/// Programs may starve each other, but not the supervisor: files, the session, and above all the end.
fn a_supervisor_does_not_wait_for_its_programs_cpu_time(user: User) {
    let Some(sealed) = Sealed::limited(user, &["--cpus", "0.01"]) else {
        return;
    };
    let gateway = &sealed.gateway;
    let marker = long_time();
    let spin = format!("for i in 1 2 3 4; do (: {marker}; while :; do :; done) & done; wait");
    let running = gateway.cli(["exec", "sealed", "sh", "-c", &spin]).spawn();
    let supervisor = gateway.supervisors()[0];
    let spinners = || {
        let mut found = process::descendants(supervisor);
        found.retain(|pid| process::command_line(*pid).contains(&marker));
        found
    };
    wait::until_true("they have begun", || spinners().len() == 5);
    let bounded = |pid: u32| -> Vec<String> {
        let groups = process::groups(pid);
        let bounded = groups.iter().filter(|path| path.ends_with("/programs"));
        bounded.cloned().collect()
    };
    assert_eq!(bounded(supervisor), [] as [&str; 0]);
    for pid in spinners() {
        assert_eq!(bounded(pid).len(), 1, "{}", process::describe(pid));
        // All else is bounded for all.
        let mut other = process::groups(pid);
        other.retain(|path| !path.ends_with("/programs"));
        let all = process::groups(supervisor);
        assert!(other.iter().all(|path| all.contains(path)), "{other:?}");
    }
    let file = gateway.home().path().join("file");
    std::fs::write(&file, vec![7; 4 << 20]).expect("written");
    let from = file.to_str().expect("text");
    gateway.ok(["cp", from, "sealed:file"]);
    gateway.ok(["cp", "sealed:file", &format!("{from}.back")]);
    assert_eq!(gateway.json(["inspect", "sealed"])["session"], true);
    gateway.ok(["rm", "--force", "sealed"]);
    running.wait();
    assert_eq!(spinners(), [] as [u32; 0]);
}

#[test]
fn an_ordinary_users_limit_of_processes_holds_without_cgroups() {
    let gateway = TestGateway::builder().user(User::Ordinary).start();
    gateway.create(["--name", "few", "--pids", "32"]);
    let marker = long_time();
    let many = format!("for i in $(seq 64); do sleep {marker} & done");
    let ran = gateway.run(["exec", "few", "sh", "-c", &many]);
    assert_ne!(ran.code(), 0, "64 processes where 32 are allowed");
    let count = process::with_argument(&marker).len();
    assert!((1..=32).contains(&count), "{count} processes");
    gateway.ok(["rm", "--force", "few"]);
}

fn tmp_and_workspace_are_bounded(user: User) {
    let sealed = Sealed::with(
        TestGateway::builder().user(user),
        &["--tmp", "8M", "--disk", "24M"],
    );
    for (path, fits, bursts) in [("/tmp", "6M", "9M"), ("/workspace", "3M", "25M")] {
        sealed.sh(&format!(
            "head -c {fits} /dev/zero > {path}/fits && rm {path}/fits"
        ));
        let script = format!("head -c {bursts} /dev/zero > {path}/bursts");
        let ran = sealed.gateway.run(["exec", "sealed", "sh", "-c", &script]);
        assert_ne!(ran.code(), 0, "{bursts} fit in {path}");
        assert!(ran.stderr.contains("No space left"), "{}", ran.stderr);
        sealed.sh(&format!("rm {path}/bursts"));
    }
    // Small files cost something, too.
    let many = "i=0; while [ $i -lt 100000 ]; do : > /tmp/$i || exit 9; i=$((i+1)); done";
    let ran = sealed.gateway.run(["exec", "sealed", "sh", "-c", many]);
    assert_ne!(ran.code(), 0, "100,000 files in a /tmp of 8 MiB");
    // So does everything else that can be written to.
    let places = sealed.sh("for d in /dev/shm /run /dev; do head -c 600M /dev/zero > $d/x 2>/dev/null && echo $d; done; true");
    assert_eq!(places, "", "600 MB fit");
}

#[test]
fn a_limit_that_cannot_be_enforced_is_refused_with_the_fix() {
    let user = User::Ordinary;
    let gateway = TestGateway::builder().user(user).start();
    let driver = gateway.driver("process");
    let limits = driver["fingerprint"]["limits"].to_string();
    if limits.contains("memory") {
        // A user session that was given cgroups, as systemd does.
        return engine::skipped();
    }
    let ran = gateway.run(["create", "--memory", "64M", "--cpus", "0.5"]);
    ran.exited(125);
    ran.says(["memory", "cpu", "cgroup", "Delegate=yes"]);
    assert_eq!(gateway.ok(["ls", "-a", "-q"]), "");
    // A default that cannot be enforced is no reason to refuse, but it is said.
    let sandbox = gateway.create([] as [&str; 0]);
    let weaknesses = gateway.json(["inspect", &sandbox])["weaknesses"].to_string();
    assert!(weaknesses.contains("memory"), "{weaknesses}");
    assert!(engine::is_there(Engine::Program("sh")));
}
