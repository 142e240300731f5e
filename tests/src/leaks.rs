//! What a gateway must not leave behind, looked for on the host itself.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::home::Home;
use crate::tree::Tree;
use crate::{cgroup, process, wait};

/// Killed processes are reaped soon, not at once.
const GONE_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn check_processes(trees: &mut [Tree]) {
    for tree in trees {
        let left = tree.left_over(GONE_WITHIN);
        let names: Vec<String> = left.into_iter().map(process::describe).collect();
        assert!(names.is_empty(), "processes are left: {names:#?}");
    }
}

pub(crate) fn check_mounts(home: &Path, sandboxes: &[String]) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read mounts");
    let home = home.to_string_lossy();
    let ours = |line: &&str| {
        line.contains(home.as_ref()) || sandboxes.iter().any(|id| line.contains(id.as_str()))
    };
    let left: Vec<&str> = mounts.lines().filter(ours).collect();
    assert!(left.is_empty(), "mounts are left: {left:#?}");
}

pub(crate) fn check_cgroups(sandboxes: &[String]) {
    // The kernel takes a cgroup's last process out of it after its parent was told of its end.
    let left = wait::within(GONE_WITHIN, || {
        cgroup::named(sandboxes).is_empty().then_some(())
    });
    assert!(
        left.is_some(),
        "cgroups are left: {:#?}",
        cgroup::named(sandboxes)
    );
}

/// No socket file anywhere, but those that the test itself has bound.
pub(crate) fn check_sockets(home: &Path) {
    let left: Vec<PathBuf> = files_below(home)
        .into_iter()
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket()))
        .filter(|path| path.parent() != Some(home) && !is_a_drivers(home, path))
        .collect();
    assert!(left.is_empty(), "sockets are left: {left:#?}");
}

/// See `driver.rs`.
fn is_a_drivers(home: &Path, path: &Path) -> bool {
    let below = path.strip_prefix(home).unwrap_or(path);
    below.to_string_lossy().starts_with("drivers-")
}

/// No file or directory that is named for a sandbox.
pub(crate) fn check_files(home: &Home, sandboxes: &[String]) {
    let mut places = vec![
        home.path().to_path_buf(),
        PathBuf::from("/run/cofferdam-test"),
    ];
    places.push(PathBuf::from("/run/cofferdam"));
    let left: Vec<PathBuf> = places
        .iter()
        .flat_map(|place| files_below(place))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            sandboxes.iter().any(|id| name.contains(id.as_str()))
        })
        .collect();
    assert!(left.is_empty(), "files of sandboxes are left: {left:#?}");
}

/// Everything below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}
