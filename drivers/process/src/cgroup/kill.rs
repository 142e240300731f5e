//! Killing what is in a cgroup.

use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{CgroupError, files, members};

/// Kills everything in the cgroup that is there now. v2 does it in one step that no fork escapes;
/// on v1 new processes are forbidden first.
pub(super) fn kill(dir: &Path) -> Result<(), CgroupError> {
    if !dir.exists() {
        return Ok(());
    }
    if dir.join("cgroup.kill").exists() {
        return files::write(dir, "cgroup.kill", "1");
    }
    if dir.join("pids.max").exists() {
        files::write(dir, "pids.max", "0")?;
    }
    for pid in members(dir) {
        kill_member(dir, pid);
    }
    Ok(())
}

/// The descriptor pins the process, so that a reused number cannot be hit: it is looked up, then
/// checked to be (still) a member, then signalled.
fn kill_member(dir: &Path, pid: i32) {
    let Some(number) = Pid::from_raw(pid) else {
        return;
    };
    let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) else {
        return;
    };
    if members(dir).contains(&pid) {
        // Gone meanwhile is what was wanted.
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
}
