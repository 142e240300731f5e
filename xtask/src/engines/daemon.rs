//! A container engine's daemon of our own: everything in one directory, stopped by pid.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What is said of it, and how it is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Daemon {
    pub(super) program: &'static str,
    /// Of its socket, in its directory.
    pub(super) socket: &'static str,
}

/// Starts it and waits until it answers; returns the API socket. `arguments` puts together how it is
/// called, from its directory and its socket.
pub(super) fn start(
    daemon: Daemon,
    dir: &Path,
    arguments: impl FnOnce(&mut Command, &Path, &Path),
) -> Result<PathBuf> {
    let name = daemon.program;
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let socket = dir.join(daemon.socket);
    if answers(&socket) {
        bail!("a {name} already answers at {}", socket.display());
    }
    let log_path = dir.join(format!("{name}.log"));
    let log = File::create(&log_path)?;
    let program = super::on_path(name)
        .with_context(|| format!("{name} is not installed; run `cargo xtask engines`"))?;
    let mut command = Command::new(program);
    arguments(&mut command, &dir, &socket);
    // Its helpers leave files where they are started: conmon an empty `oom`, for instance.
    let mut child = command
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    fs::write(pid_file(&dir), child.id().to_string())?;
    let deadline = Instant::now() + START_TIMEOUT;
    while !answers(&socket) {
        if let Some(status) = child.try_wait()? {
            bail!(
                "{name} ended at once ({status}); its log ends:\n{}",
                tail(&log_path)
            );
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!(
                "{name} did not answer within {START_TIMEOUT:?}; its log ends:\n{}",
                tail(&log_path)
            );
        }
        pause();
    }
    Ok(socket)
}

/// Stops it by the pid it was started with, after checking that the pid still is this daemon's.
pub(super) fn stop(daemon: Daemon, dir: &Path) -> Result<()> {
    let name = daemon.program;
    let dir = dir
        .canonicalize()
        .with_context(|| format!("find {}", dir.display()))?;
    let Ok(text) = fs::read_to_string(pid_file(&dir)) else {
        println!("no {name} was started in {}", dir.display());
        return Ok(());
    };
    let pid = text
        .trim()
        .parse()
        .ok()
        .and_then(Pid::from_raw)
        .context("the pid file holds no pid")?;
    if !is_ours(pid, &dir) {
        println!("the {name} of {} is gone already", dir.display());
        return Ok(());
    }
    rustix::process::kill_process(pid, Signal::TERM).with_context(|| format!("stop {name}"))?;
    let deadline = Instant::now() + STOP_TIMEOUT;
    while is_ours(pid, &dir) {
        if Instant::now() > deadline {
            bail!(
                "{name} (pid {}) did not stop within {STOP_TIMEOUT:?}",
                pid.as_raw_nonzero()
            );
        }
        pause();
    }
    Ok(())
}

fn pid_file(dir: &Path) -> PathBuf {
    dir.join("daemon.pid")
}

/// It is called with its directory. A zombie has an empty command line, so it does not count as running.
fn is_ours(pid: Pid, dir: &Path) -> bool {
    let cmdline = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&cmdline).contains(&*dir.to_string_lossy())
}

fn answers(socket: &Path) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")?;
        let mut head = [0; 15];
        stream.read_exact(&mut head)?;
        Ok(head.windows(5).any(|part| part == b" 200 "))
    };
    ping().unwrap_or(false)
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

#[allow(
    clippy::disallowed_methods,
    reason = "waiting for a foreign daemon offers nothing but polling"
)]
fn pause() {
    std::thread::sleep(POLL_INTERVAL);
}
