//! A gateway of our own: private directories, staged binaries, nothing left behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cofferdam_proto::gateway::v1::GetInfoRequest;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{self, Client};
use crate::procfs;

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The product's binaries, copied to where nobody else runs them from: so a process is known for
/// ours by its program file.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) cli: PathBuf,
    pub(crate) gateway: PathBuf,
    pub(crate) libexec: PathBuf,
    home: PathBuf,
}

impl Staged {
    pub(crate) fn copy(bin: &Path, libexec: &Path, home: &Path) -> Result<Self> {
        let staged = Self {
            cli: home.join("bin/cofferdam"),
            gateway: home.join("bin/cofferdam-gateway"),
            libexec: home.join("libexec"),
            home: home.to_path_buf(),
        };
        copy_all(bin, &home.join("bin"))?;
        copy_all(libexec, &staged.libexec)?;
        Ok(staged)
    }

    /// Ends whatever still runs from here; returns how many there were.
    pub(crate) fn sweep(&self) -> usize {
        let left = procfs::running_from(&self.home);
        for pid in &left {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                // Gone meanwhile is fine.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
        left.len()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.sweep();
    }
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name)).with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}

#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) socket: PathBuf,
    pub(crate) pid: u32,
    /// From its start to READY=1, and to the first `GetInfo` that says so.
    pub(crate) notified: Duration,
    pub(crate) answered: Duration,
    child: Child,
    log: PathBuf,
}

impl Gateway {
    /// Starts one whose state, sockets and log are all in `home`, and waits until it is ready.
    pub(crate) async fn start(staged: &Staged, home: &Path) -> Result<Self> {
        Self::start_with(staged, home, "").await
    }

    /// As `start`, with more in its configuration file.
    pub(crate) async fn start_with(staged: &Staged, home: &Path, more: &str) -> Result<Self> {
        fs::create_dir_all(home).with_context(|| format!("create {}", home.display()))?;
        let log = home.join("gateway.log");
        let socket = home.join("gateway.sock");
        let notify_path = home.join("notify.sock");
        // A second start in the same place is a restart.
        let _absent = fs::remove_file(&notify_path);
        let notify = UnixDatagram::bind(&notify_path).context("bind the notify socket")?;
        let config = home.join("config.toml");
        // All that the driver keeps is here too: another gateway's driver has a place of its own.
        let driver_state = home.join("driver");
        let settings = format!("{more}[drivers.process.settings]\nstate_dir = {driver_state:?}\n");
        fs::write(&config, settings).context("write the gateway's configuration")?;
        let mut command = Command::new(&staged.gateway);
        clear(&mut command);
        command
            .args(["--config".as_ref(), config.as_os_str()])
            .args(["--socket".as_ref(), socket.as_os_str()])
            .args(["--state-dir".as_ref(), home.join("state").as_os_str()])
            .args(["--runtime-dir".as_ref(), home.join("run").as_os_str()])
            .args(["--libexec".as_ref(), staged.libexec.as_os_str()])
            .env("NOTIFY_SOCKET", &notify_path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).context("create the gateway's log")?)
            // Ctrl-C is for us; we stop it.
            .process_group(0)
            .kill_on_drop(true);
        let start = Instant::now();
        let mut child = command.spawn().context("start the gateway")?;
        let ready = timeout(START_PATIENCE, async {
            tokio::select! {
                ready = until_ready(&notify, &socket, start) => ready,
                status = child.wait() => bail!("it ended: {}", status?),
            }
        })
        .await;
        let (notified, answered) = ready
            .context("it did not get ready in time")
            .flatten()
            .with_context(|| format!("start the gateway; its log ends:\n{}", tail(&log)))?;
        let pid = child.id().context("the gateway has ended")?;
        Ok(Self {
            socket,
            pid,
            notified,
            answered,
            child,
            log,
        })
    }

    pub(crate) fn connect(&self) -> Client {
        client::connect(&self.socket)
    }

    /// Asks it to end and waits. An error if it had to be killed.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).context("stop the gateway")?;
        }
        match timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(status) => {
                let status = status.context("wait for the gateway")?;
                if !status.success() {
                    bail!(
                        "the gateway ended with {status}; its log ends:\n{}",
                        tail(&self.log)
                    );
                }
                Ok(())
            }
            Err(_) => {
                self.child.kill().await.context("kill the gateway")?;
                bail!(
                    "the gateway did not stop in time; its log ends:\n{}",
                    tail(&self.log)
                )
            }
        }
    }

    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

/// Nothing of the caller's environment may configure what is measured.
fn clear(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COFFERDAM_") {
            command.env_remove(name);
        }
    }
}

async fn until_ready(
    notify: &UnixDatagram,
    socket: &Path,
    start: Instant,
) -> Result<(Duration, Duration)> {
    let mut message = [0; 4096];
    loop {
        let length = notify
            .recv(&mut message)
            .await
            .context("wait for READY=1")?;
        if String::from_utf8_lossy(&message[..length])
            .lines()
            .any(|line| line == "READY=1")
        {
            break;
        }
    }
    let notified = start.elapsed();
    let mut client = client::connect(socket);
    loop {
        match client.get_info(GetInfoRequest {}).await {
            Ok(info) if info.get_ref().ready => return Ok((notified, start.elapsed())),
            _ => sleep(POLL_INTERVAL).await,
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
