//! A dockerd of our own: no firewall rule, no bridge.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::daemon::{self, Daemon};

const DOCKERD: Daemon = Daemon {
    program: super::DOCKERD,
    socket: "docker.sock",
};

/// Starts it and waits until it answers; returns the API socket.
pub(crate) fn start(dir: &Path) -> Result<PathBuf> {
    daemon::start(DOCKERD, dir, |command, dir, socket| {
        command
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("docker.pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            // The host's firewall and interfaces are not ours to touch.
            .args(["--iptables=false", "--ip-masq=false", "--bridge=none"]);
    })
}

/// Stops it, and with it its containers.
pub(crate) fn stop(dir: &Path) -> Result<()> {
    daemon::stop(DOCKERD, dir)
}
