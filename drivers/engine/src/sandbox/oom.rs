//! How often the kernel has killed something in a container for want of memory.
//!
//! An engine says only that it happened. Where its containers are processes of this host, the
//! kernel's own counter is read instead.

use std::fs;
use std::path::{Path, PathBuf};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The kernel's counter for the container whose first process is `pid`. None: not to be seen from
/// here.
pub(super) fn kernel_count(pid: i64, container_id: &str) -> Option<u64> {
    if pid <= 0 || container_id.is_empty() {
        return None;
    }
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = memory_cgroup(&cgroups, container_id)?;
    let (file, field) = match path.is_v2 {
        true => ("memory.events", "oom_kill "),
        false => ("memory.oom_control", "oom_kill "),
    };
    let text = fs::read_to_string(path.directory.join(file)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().parse().ok()
}

#[derive(Debug, PartialEq, Eq)]
struct MemoryCgroup {
    directory: PathBuf,
    is_v2: bool,
}

/// A process of this number may be somebody else's, when the engine is in another machine: only a
/// cgroup with the container's id in its name counts.
fn memory_cgroup(cgroups: &str, container_id: &str) -> Option<MemoryCgroup> {
    let ours = |path: &str| path.contains(container_id);
    let below = |hierarchy: &str, path: &str| {
        Path::new(CGROUP_ROOT)
            .join(hierarchy)
            .join(path.trim_start_matches('/'))
    };
    let mut v2 = None;
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        if !ours(path) {
            continue;
        }
        if controllers.split(',').any(|name| name == "memory") {
            return Some(MemoryCgroup {
                directory: below("memory", path),
                is_v2: false,
            });
        }
        if number == "0" && controllers.is_empty() {
            v2 = Some(MemoryCgroup {
                directory: below("", path),
                is_v2: true,
            });
        }
    }
    v2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_cgroup_is_found_in_both_hierarchies() {
        let v1 = "5:pids:/e/c1\n4:cpu,memory:/e/c1\n0::/\n";
        let found = memory_cgroup(v1, "c1").unwrap();
        assert_eq!(found.directory, Path::new("/sys/fs/cgroup/memory/e/c1"));
        let found = memory_cgroup("0::/system.slice/e-c1.scope\n", "c1").unwrap();
        assert!(found.is_v2);
        assert_eq!(
            found.directory,
            Path::new("/sys/fs/cgroup/system.slice/e-c1.scope")
        );
    }

    #[test]
    fn somebody_elses_process_is_not_counted() {
        assert_eq!(memory_cgroup("0::/user.slice\n", "c1"), None);
        assert_eq!(kernel_count(1, "c1"), None);
        assert_eq!(kernel_count(0, "c1"), None);
    }
}
