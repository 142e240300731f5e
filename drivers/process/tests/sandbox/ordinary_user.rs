//! The same tests once more, as an ordinary user with a delegated cgroup, and those about
//! bounds without one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

use cofferdam_driver_process::cgroup::CgroupParent;

use crate::harness::{is_root, shim, stand_in};

/// An id that nothing else here uses.
const USER: u32 = 61_234;

#[test]
fn an_ordinary_user_gets_the_same_sandboxes() {
    if !is_root() {
        return println!("skipped: not root, so all the tests ran as an ordinary user already");
    }
    let dir = tempfile::Builder::new()
        .prefix("cofferdam-test-")
        .tempdir_in("/tmp")
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: PathBuf, name: &str| {
        let to = dir.path().join(name);
        fs::copy(from, &to).unwrap();
        to
    };
    let tests = copy(std::env::current_exe().unwrap(), "tests");
    let parent = format!("cofferdam-test-{}-user", std::process::id());
    let cgroups = CgroupParent::detect(Some(parent.as_ref()));
    for cgroup in cgroups.dirs() {
        chown(&cgroup, Some(USER), Some(USER)).unwrap();
        for file in ["cgroup.procs", "cgroup.subtree_control", "tasks"] {
            // Not every version has each of them.
            let _ = chown(cgroup.join(file), Some(USER), Some(USER));
        }
    }
    // On v2 only a process below the delegated cgroup may move others within it.
    let unified = cgroups
        .dirs()
        .into_iter()
        .find(|dir| dir.join("cgroup.controllers").exists());
    let seat = unified.map(|dir| dir.join("tests"));
    seat.iter().for_each(|seat| fs::create_dir(seat).unwrap());
    let [shim, init] = [copy(shim(), "shim"), copy(stand_in(), "init")];
    let run = |cgroup: Option<&str>, filter: &[&str]| {
        let mut command = Command::new("sh");
        let enter = "test -z \"$SEAT\" || echo $$ > $SEAT/cgroup.procs; exec setpriv \"$@\"";
        command.args(["-c", enter, "sh"]);
        command.envs(seat.iter().map(|seat| ("SEAT", seat)));
        command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
        command.args([
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--",
        ]);
        command
            .arg(&tests)
            .args(["--test-threads=2", "--nocapture"])
            .args(filter);
        command
            .env("COFFERDAM_TEST_SHIM", &shim)
            .env("COFFERDAM_TEST_INIT", &init);
        command.envs(cgroup.map(|parent| ("COFFERDAM_TEST_CGROUP", parent)));
        command.output()
    };
    let ran = [run(Some(&parent), &[]), run(None, &["bounds"])];
    for cgroup in seat.into_iter().chain(cgroups.dirs()) {
        let _ = fs::remove_dir(cgroup);
    }
    for ran in ran {
        let ran = ran.unwrap();
        if ran.status.code() == Some(127) {
            return println!("skipped: setpriv is missing");
        }
        let (out, err) = (
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr),
        );
        assert!(ran.status.success(), "{out}\n{err}");
        println!("{out}");
    }
}
