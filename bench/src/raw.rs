//! The raw platforms: processes, bubblewrap and pipes, timed from outside.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Looked for in this order, so that host and sandbox run the same file.
const TRUE: &[&str] = &["/usr/bin/true", "/bin/true"];
const ECHO: u8 = b'e';
const FORK: u8 = b'f';

pub(crate) fn true_program() -> &'static str {
    let exists = |path: &&&str| Path::new(path).exists();
    TRUE.iter().find(exists).copied().unwrap_or("/bin/true")
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// From the start of a command to its end; its output goes nowhere. A failure is an error.
pub(crate) fn time(command: &mut Command) -> Result<Duration> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    let took = start.elapsed();
    if !status.success() {
        bail!("{:?} ended with {status}", command);
    }
    Ok(took)
}

/// The standard library takes posix_spawn (a vfork) for this.
pub(crate) fn posix_spawn() -> Command {
    Command::new(true_program())
}

/// A change of the user, even to the same, makes the standard library fork and exec.
fn fork_and_exec() -> Command {
    let mut command = Command::new(true_program());
    command.uid(rustix::process::geteuid().as_raw());
    command
}

/// What the process driver's sandbox is compared with: every namespace, read-only root, fresh
/// /tmp, /proc and /dev.
pub(crate) fn bwrap(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--unshare-all", "--ro-bind", "/", "/", "--tmpfs", "/tmp"])
        .args(["--proc", "/proc", "--dev", "/dev"])
        .arg(true_program());
    command
}

/// A line for a shell, where pipes are wanted.
pub(crate) fn shell(line: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", line]).kill_on_drop(true);
    command
}

/// As `time`, for what takes long: does not block the runtime, so that Ctrl-C is heard.
pub(crate) async fn time_long(command: &mut tokio::process::Command) -> Result<Duration> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let start = Instant::now();
    let output = command
        .stderr(Stdio::piped())
        .spawn()
        .context("start a command")?;
    let output = output
        .wait_with_output()
        .await
        .context("wait for a command")?;
    let took = start.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{:?} ended with {}: {}",
            command.as_std(),
            output.status,
            said.trim()
        );
    }
    Ok(took)
}

/// A small single-threaded process beside us: it forks without copying our page tables, and
/// answers as fast as the scheduler lets anybody answer.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

/// The argument that makes this program the helper.
pub(crate) const HELPER: &str = "--as-helper";

impl Helper {
    pub(crate) fn start() -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(program)
            .arg(HELPER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the helper")?;
        let requests = child.stdin.take().context("the helper has no stdin")?;
        let answers = child.stdout.take().context("the helper has no stdout")?;
        Ok(Self {
            child,
            requests,
            answers,
        })
    }

    /// fork, execve and wait for `true`, timed over there.
    pub(crate) fn fork(&mut self) -> Result<Duration> {
        let ns = self.ask(FORK)?;
        if ns == u64::MAX {
            bail!("the helper could not fork");
        }
        Ok(Duration::from_nanos(ns))
    }

    /// A byte there and eight back: the floor of any call to another process.
    pub(crate) fn echo(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.ask(ECHO)?;
        Ok(start.elapsed())
    }

    fn ask(&mut self, what: u8) -> Result<u64> {
        let mut answer = [0; 8];
        self.requests.write_all(&[what]).context("ask the helper")?;
        self.answers
            .read_exact(&mut answer)
            .context("hear from the helper")?;
        Ok(u64::from_le_bytes(answer))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The helper's side, until its stdin ends.
pub(crate) fn serve_as_helper() -> std::io::Result<()> {
    let (mut requests, mut answers) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut request = [0];
    while requests.read_exact(&mut request).is_ok() {
        let answer = match request[0] {
            FORK => time(&mut fork_and_exec()).map_or(u64::MAX, |took| took.as_nanos() as u64),
            _ => 0,
        };
        answers.write_all(&answer.to_le_bytes())?;
        answers.flush()?;
    }
    Ok(())
}
