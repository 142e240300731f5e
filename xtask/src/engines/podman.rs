//! A Podman service of our own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

use super::daemon::{self, Daemon};
use crate::workspace;

const PODMAN: Daemon = Daemon {
    program: super::PODMAN,
    socket: "podman.sock",
};

/// Starts it and waits until it answers; returns the API socket.
pub(crate) fn start(dir: &Path) -> Result<PathBuf> {
    daemon::start(PODMAN, dir, |command, dir, socket| {
        place(command, dir);
        command
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}", socket.display()));
    })
}

/// Removes its containers, which would go on without it, and stops it.
pub(crate) fn stop(dir: &Path) -> Result<()> {
    let dir = dir.canonicalize()?;
    let mut remove = Command::new(super::PODMAN);
    place(&mut remove, &dir);
    let removed = workspace::check(remove.args(["rm", "--all", "--force", "--time", "0"]));
    daemon::stop(PODMAN, &dir)?;
    // Its own; it leaves it mounted for its next start.
    match unmount(dir.join("root/overlay"), UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(errno).context("unmount the images"),
    }
    removed
}

/// All that it keeps is in the directory. `runc`, because Debian's crun refuses hosts that have the
/// old control groups beside the new.
fn place(command: &mut Command, dir: &Path) {
    command
        .arg("--root")
        .arg(dir.join("root"))
        .arg("--runroot")
        .arg(dir.join("run"))
        .arg("--tmpdir")
        .arg(dir.join("tmp"))
        .args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"])
        .args(["--events-backend", "file"]);
}
