//! A container of a dockerd of our own, with nothing in it but a static busybox.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::raw;

pub(crate) const IMAGE: &str = "cofferdam-bench";
const CONTAINER: &str = "cofferdam-bench-ready";
/// What the benchmarks run in it.
const APPLETS: &[&str] = &["cat", "head", "sh", "sleep", "true", "wc"];

/// A running container.
#[derive(Debug)]
pub(crate) struct Docker {
    client: PathBuf,
    pub(crate) host: String,
    daemon: Daemon,
    pub(crate) version: String,
}

/// Who starts and stops the daemon, and where it lives.
#[derive(Debug)]
struct Daemon {
    xtask: PathBuf,
    dir: PathBuf,
}

/// Starts a daemon and a container. `Err` with a reason if something is missing here.
pub(crate) fn start(xtask: Option<&Path>, home: &Path) -> Result<Docker> {
    let xtask = xtask.context("run by itself, without `cargo xtask bench`")?;
    let client = raw::find("docker").context("docker is not installed")?;
    let busybox = raw::find("busybox").context("busybox is not installed")?;
    if !rustix::process::geteuid().is_root() {
        bail!("a dockerd of our own needs root");
    }
    let dir = home.join(crate::janitor::DOCKER_DIR);
    let started = Command::new(xtask)
        .args(["engines", "start-docker"])
        .arg(&dir)
        .stderr(Stdio::piped())
        .output()
        .context("start dockerd")?;
    if !started.status.success() {
        bail!("{}", String::from_utf8_lossy(&started.stderr).trim());
    }
    let daemon = Daemon {
        xtask: xtask.to_path_buf(),
        dir,
    };
    let host = String::from_utf8_lossy(&started.stdout).trim().to_owned();
    // From here on dropping it stops the daemon.
    let mut docker = Docker {
        client,
        host,
        daemon,
        version: String::new(),
    };
    docker.version = docker.say(&["version", "--format", "{{.Server.Version}}"])?;
    docker.import(&busybox, &home.join("image"))?;
    docker.say(&[
        "run",
        "--detach",
        "--network",
        "none",
        "--name",
        CONTAINER,
        IMAGE,
        "/bin/sleep",
        "86400",
    ])?;
    Ok(docker)
}

impl Docker {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command
            .env_remove("DOCKER_CONTEXT")
            .args(["--host", &self.host])
            .args(words);
        command
    }

    /// `docker exec` of a command, as a person would type it.
    pub(crate) fn exec(&self, words: &[&str]) -> Command {
        let mut command = self.command(&["exec", CONTAINER]);
        command.args(words);
        command
    }

    /// `docker run` of `true` in a fresh container.
    pub(crate) fn run(&self) -> Command {
        self.command(&["run", "--rm", "--network", "none", IMAGE, "/bin/true"])
    }

    /// The command line of `docker exec -i`, for a shell.
    pub(crate) fn exec_line(&self, words: &str) -> String {
        let client = self.client.display();
        format!("{client} --host {} exec -i {CONTAINER} {words}", self.host)
    }

    /// The first process of the container, and with it the shim above it.
    pub(crate) fn init_pid(&self) -> Result<u32> {
        let pid = self.say(&["inspect", "--format", "{{.State.Pid}}", CONTAINER])?;
        pid.parse().context("docker names no pid")
    }

    fn say(&self, words: &[&str]) -> Result<String> {
        let output = self
            .command(words)
            .stdin(Stdio::null())
            .output()
            .context("run docker")?;
        if !output.status.success() {
            bail!(
                "docker {}: {}",
                words[0],
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn import(&self, busybox: &Path, root: &Path) -> Result<()> {
        let bin = root.join("bin");
        std::fs::create_dir_all(&bin).context("make an image")?;
        std::fs::copy(busybox, bin.join("busybox")).context("copy busybox")?;
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).context("name an applet")?;
        }
        let mut tar = Command::new("tar")
            .args(["--create", "--directory"])
            .arg(root)
            .arg(".")
            .stdout(Stdio::piped())
            .spawn()
            .context("start tar")?;
        let archive = tar.stdout.take().context("tar has no stdout")?;
        let imported = self
            .command(&["import", "-", IMAGE])
            .stdin(archive)
            .output();
        tar.wait().context("wait for tar")?;
        let imported = imported.context("run docker import")?;
        if !imported.status.success() {
            bail!(
                "docker import: {}",
                String::from_utf8_lossy(&imported.stderr).trim()
            );
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Whatever of it is gone already needs no removing.
        let _gone = self.say(&["rm", "--force", CONTAINER]);
        let _gone = Command::new(&self.daemon.xtask)
            .args(["engines", "stop-docker"])
            .arg(&self.daemon.dir)
            .stdout(Stdio::null())
            .status();
    }
}
