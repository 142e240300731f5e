//! What a workload is allowed: nothing special.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use cofferdam_tests::engine::Engine;
use cofferdam_tests::{TestGateway, User, need};

use super::{Sealed, for_each_user};

for_each_user!(
    a_workload_has_no_capabilities_and_can_gain_none,
    only_its_own_processes_are_visible,
    calls_that_no_workload_needs_are_refused
);

fn a_workload_has_no_capabilities_and_can_gain_none(user: User) {
    let sealed = Sealed::new(user);
    let text = sealed.sh("cat /proc/self/status");
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
    assert_eq!(field("Groups"), "");
    for ids in ["Uid", "Gid"] {
        let field = field(ids);
        assert!(
            field.split_whitespace().all(|id| id == "1000"),
            "{ids}: {field}"
        );
    }
    // Nor does asking for root give it, unless the caller may: then it is recorded.
    assert_eq!(sealed.sh("ulimit -c"), "0");
}

fn only_its_own_processes_are_visible(user: User) {
    let sealed = Sealed::new(user);
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done";
    let processes = sealed.sh(script);
    let strange: Vec<&str> = processes
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .filter(|line| !line.starts_with("cofferdam-supervisor"))
        .filter(|line| !line.starts_with("sh -c for p in") && !line.starts_with("tr "))
        .collect();
    assert_eq!(strange, [""; 0]);
    let pid_one = sealed.sh("tr '\\0' ' ' < /proc/1/cmdline");
    assert!(pid_one.starts_with("cofferdam-supervisor"), "{pid_one}");
    // Its arguments hold no path of the host and no token.
    assert!(!pid_one.contains('/') && pid_one.len() < 80, "{pid_one}");
}

fn calls_that_no_workload_needs_are_refused(user: User) {
    let sealed = Sealed::new(user);
    let found = sealed.probe(["calls"]);
    assert!(found.len() > 30, "{found:?}");
    let refusals = ["EPERM", "EACCES", "ENOSYS"];
    // Root may not even have a number there.
    let is_unknown = |what: &str, how: &str| how == "EINVAL" && what.starts_with("set");
    let others: Vec<_> = found
        .iter()
        .filter(|(what, how)| !refusals.contains(&how.as_str()) && !is_unknown(what, how))
        .collect();
    assert!(others.is_empty(), "not refused: {others:?}");
}

#[test]
fn a_setuid_program_of_root_is_inert() {
    need!(Engine::Root);
    let mut builder = TestGateway::builder();
    let dir = builder.home().join("granted");
    fs::create_dir(&dir).expect("create a directory");
    let program = dir.join("id");
    fs::copy("/usr/bin/id", &program).expect("copy id");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).expect("chmod");
    let path = dir.to_string_lossy().into_owned();
    // On the host it does what setuid promises.
    let mut outside = Command::new(&program);
    User::Ordinary.run(&mut outside);
    let output = outside.arg("-u").output().expect("run id");
    assert_eq!(
        output.stdout, b"0\n",
        "setuid does not work in /tmp of this host"
    );

    let gateway = builder
        .process_setting(&format!("read_only_paths = [{path:?}]"))
        .start();
    let mount = format!("type=bind,src={path},dst=/granted,ro");
    gateway.create(["--name", "setuid", "--mount", &mount]);
    assert_eq!(gateway.ok(["exec", "setuid", "/granted/id", "-u"]), "1000");
    gateway
        .run(["exec", "setuid", "touch", "/granted/x"])
        .exited(1);
}

#[test]
fn a_path_that_the_operator_did_not_grant_cannot_be_mounted() {
    for (setting, words) in [
        ("", ["mount", "host"]),
        ("read_only_paths = [\"/usr/share\"]", ["--mount", "/etc"]),
    ] {
        let gateway = TestGateway::builder().process_setting(setting).start();
        for flags in [
            "src=/etc,dst=/granted,ro",
            "src=/usr/share/../../etc,dst=/granted,ro",
        ] {
            let mount = format!("type=bind,{flags}");
            let ran = gateway.run(["create", "--mount", &mount]);
            ran.exited(125);
            ran.says(words);
        }
        assert_eq!(gateway.ok(["ls", "-a", "-q"]), "");
    }
}
