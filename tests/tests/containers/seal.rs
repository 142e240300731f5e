//! Trying to break out of a container.

use std::collections::BTreeMap;

use cofferdam_tests::container::Kind;

use super::{Contained, for_each_engine};
use crate::sealed::{none_is_ok, probe, ways_to_the_callback};

for_each_engine!(
    a_workload_has_no_capabilities_and_can_gain_none,
    nothing_of_the_host_can_be_read_or_written,
    there_is_no_network,
    calls_that_no_workload_needs_are_refused,
    the_supervisor_is_out_of_reach,
    a_workload_cannot_answer_in_its_supervisors_place,
    a_setuid_program_of_root_is_inert,
    limits_hold,
);

fn sealed(kind: Kind, flags: &[&str]) -> Contained {
    let contained = Contained::new(kind);
    contained.create("sealed", flags);
    probe::install(contained.gateway(), "sealed");
    contained
}

fn find(contained: &Contained, args: &[&str]) -> BTreeMap<String, String> {
    let words = ["exec", "sealed", "./probe"].iter().chain(args);
    let text = contained.gateway().ok(words);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn a_workload_has_no_capabilities_and_can_gain_none(kind: Kind) {
    let contained = Contained::new(kind);
    contained.create("sealed", &[]);
    let text = contained.sh("sealed", "cat /proc/self/status");
    let field = |title: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{title}:")));
        line.unwrap_or_else(|| panic!("no {title} in {text}"))
            .trim()
            .to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    for ids in ["Uid", "Gid"] {
        let field = field(ids);
        let is_ours = field.split_whitespace().all(|id| id == "1000");
        assert!(is_ours, "{ids}: {field}");
    }
}

fn nothing_of_the_host_can_be_read_or_written(kind: Kind) {
    let contained = sealed(kind, &[]);
    let state = contained.gateway().state_dir();
    let run = contained.gateway().runtime_dir();
    let written = [
        "write",
        "/file",
        "/etc/file",
        "/usr/file",
        "/.cofferdam/bin/cofferdam-supervisor",
        "/.cofferdam/bin/file",
        "/.cofferdam/callback/file",
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/file",
    ];
    none_is_ok(&find(&contained, &written));
    let (state, run) = (state.to_string_lossy(), run.to_string_lossy());
    let read = [
        "read",
        &state,
        &run,
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/proc/1/environ",
        "/proc/1/root",
        "/proc/1/mem",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/sda",
        "/dev/vda",
    ];
    none_is_ok(&find(&contained, &read));
}

fn there_is_no_network(kind: Kind) {
    let contained = sealed(kind, &[]);
    let interfaces = contained.sh("sealed", "ls /sys/class/net");
    assert!(
        interfaces.split_whitespace().all(|name| name == "lo"),
        "{interfaces}"
    );
    assert_eq!(
        contained
            .sh("sealed", "cat /proc/net/route")
            .lines()
            .count(),
        1
    );
}

fn calls_that_no_workload_needs_are_refused(kind: Kind) {
    let contained = sealed(kind, &[]);
    let mut found = find(&contained, &["calls"]);
    assert!(found.len() > 30, "{found:?}");
    if kind == Kind::Podman {
        // Its own filter lets every program have these; without privileges, as it is here.
        found.retain(|what, _| !what.starts_with("unshare") && what != "keyctl");
    }
    none_is_ok(&found);
}

fn the_supervisor_is_out_of_reach(kind: Kind) {
    let contained = sealed(kind, &[]);
    let mut found = find(&contained, &["pid-one"]);
    assert!(found.len() > 30, "{found:?}");
    // PID 1 is sent signals by its own user without an error, and without an effect.
    found.retain(|what, _| !what.starts_with("signal"));
    none_is_ok(&found);
    let signals = "STOP TERM INT HUP SEGV USR1 CHLD ALRM KILL";
    let script = format!("for s in {signals}; do kill -$s 1 2>/dev/null; done; true");
    contained.sh("sealed", &script);
    assert_eq!(contained.sh("sealed", "echo alive"), "alive");
}

/// The socket's directory is in the container: whoever answers there has to know the token.
fn a_workload_cannot_answer_in_its_supervisors_place(kind: Kind) {
    let contained = sealed(kind, &[]);
    let gateway = contained.gateway();
    let about = gateway.json(["inspect", "sealed"]);
    let id = about["sandbox_id"].as_str().expect("an id");
    let mut running = gateway.cli(["exec", "-i", "sealed", "cat"]).spawn();
    running.type_in("before\n");
    running.expect("before\n");
    let mut args = vec!["callback".to_owned(), id.to_owned()];
    args.push("/.cofferdam/callback/gateway.sock".to_owned());
    args.extend(ways_to_the_callback());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let found = find(&contained, &args);
    assert!(found.len() > 40, "{found:?}");
    none_is_ok(&found);
    running.type_in("after\n");
    running.expect("after\n");
    running.end_stdin();
    assert_eq!(running.wait().success(), "before\nafter");
    assert_eq!(contained.sh("sealed", "echo works"), "works");
}

fn a_setuid_program_of_root_is_inert(kind: Kind) {
    let contained = sealed(kind, &[]);
    let about = contained.sh("sealed", "stat -c '%u %a' /bin/setuid-probe");
    assert_eq!(about, "0 6755");
    let found = contained.sh("sealed", "/bin/setuid-probe identity");
    assert_eq!(found, r#"{"gid":1000,"uid":1000}"#);
}

fn limits_hold(kind: Kind) {
    let contained = sealed(kind, &["--pids", "40"]);
    let script = "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done; echo made";
    let bomb = ["exec", "sealed", "sh", "-c", script];
    contained.gateway().run(bomb).says(["fork"]);
    contained.create("eater", &["--memory", "96M"]);
    let ran = contained
        .gateway()
        .run(["--json", "exec", "eater", "tail", "/dev/zero"]);
    ran.exited(128 + 9);
    assert_eq!(ran.result()["execution"]["reason"], "OOM_KILLED");
    // Of a command that ends well although it has lost a child, nobody asks why it ended.
    assert_eq!(contained.sh("eater", "tail /dev/zero; echo $?"), "137");
    let killed = ["--json", "exec", "eater", "sh", "-c", "kill -KILL $$"];
    let ran = contained.gateway().run(killed);
    ran.exited(128 + 9);
    assert_eq!(ran.result()["execution"]["reason"], "SIGNALED");
    let about = contained.gateway().json(["inspect", "eater"]);
    assert_eq!(about["state"], "READY", "{about:#}");
}
