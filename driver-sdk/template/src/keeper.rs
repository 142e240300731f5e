//! The keeper: a process for each sandbox, which outlives the driver and the gateway.
//!
//! REPLACE: a platform of its own (an engine, a hypervisor, a cluster) keeps its sandboxes by
//! itself. What it must give you is what the keeper gives here:
//!
//! - it goes on when the driver is gone, and can be found again;
//! - it ends everything at the expire time, whoever else is dead by then;
//! - it knows how a sandbox ended, also if nobody was watching.
//!
//! ```text
//!   order.json ─► supervisor ─► boot.json ─┬─ ends by itself ──────────────┐
//!                                          ├─ SIGTERM: asked to end ───────┤
//!                                          ├─ SIGUSR1: killed ─────────────┼─► end.json ─► exit
//!                                          └─ the expire time: killed ─────┘
//! ```
//!
//! It is the reaper of everything below it, so that no process can leave the sandbox by losing its
//! parent, and "everything" can be killed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::sleep;

use crate::process::{ProcessId, descendants};
use crate::record;

/// First argument of this program when it is to be a keeper.
pub const COMMAND: &str = "keep";

/// What the driver wants kept. No secret: the bootstrap comes through stdin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) boot: u64,
    pub(crate) supervisor: PathBuf,
    pub(crate) callback_directory: PathBuf,
    pub(crate) expire_time_unix_ms: u64,
    pub(crate) nice: i32,
}

/// That a keeper has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) boot: u64,
    pub(crate) keeper: ProcessId,
    pub(crate) time_unix_ms: u64,
}

/// How a boot ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) boot: u64,
    pub(crate) cause: Cause,
    pub(crate) time_unix_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// The supervisor ended by itself, with this code or by this signal.
    Own {
        code: Option<i32>,
        signal: Option<i32>,
    },
    /// The driver asked for it.
    Asked,
    Deadline,
    /// The keeper is gone, and nobody knows. Written by the driver.
    Lost,
}

/// Holds an [`End`].
pub(crate) const END: &str = "end.json";
/// See [`hold_alive`].
pub(crate) const ALIVE: &str = "alive";
/// Between two looks at a clock that somebody may set.
const CLOCK_INTERVAL: Duration = Duration::from_secs(30);
/// For the kernel to take down what was killed.
const KILL_INTERVAL: Duration = Duration::from_millis(5);

/// The whole life of a keeper. `dir` is the sandbox's.
pub fn main(dir: Option<OsString>) -> ExitCode {
    let kept = match dir {
        Some(dir) => keep(Path::new(&dir)),
        None => Err(io::Error::other("the sandbox's directory is missing")),
    };
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The console: nobody is left to tell if that is not possible.
            let _ = writeln!(io::stderr(), "the keeper failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn keep(dir: &Path) -> io::Result<()> {
    let order: Option<Order> = record::read(&dir.join("order.json"))?;
    let order = order.ok_or_else(|| io::Error::other("there is no order.json"))?;
    // Away from the driver's terminal and process group.
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::nice(order.nice)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(live(dir, &order))
}

async fn live(dir: &Path, order: &Order) -> io::Result<()> {
    // Before anybody can know of us: none is missed.
    let signals = Signals {
        asked: signal(SignalKind::terminate())?,
        killed: signal(SignalKind::user_defined1())?,
        children: signal(SignalKind::child())?,
    };
    let _alive = hold_alive(dir)?;
    let supervisor = start(dir, order).map_err(|error| {
        io::Error::other(format!(
            "cannot start {}: {error}",
            order.supervisor.display()
        ))
    })?;
    // From here on the driver says RUNNING.
    let boot = Boot {
        boot: order.boot,
        keeper: ProcessId::of(std::process::id().cast_signed())?,
        time_unix_ms: now_unix_ms(),
    };
    let written = record::write(&dir.join("boot.json"), &boot);
    let cause = match written {
        Ok(()) => ended(supervisor, order, signals).await,
        // The sandbox was removed meanwhile.
        Err(_) => Cause::Asked,
    };
    kill_everything().await;
    written?;
    let end = End {
        boot: order.boot,
        cause,
        time_unix_ms: now_unix_ms(),
    };
    record::write(&dir.join(END), &end)
}

struct Signals {
    asked: SignalStream,
    killed: SignalStream,
    children: SignalStream,
}

/// Waits until the supervisor has ended, or has to be ended.
async fn ended(supervisor: Pid, order: &Order, mut signals: Signals) -> Cause {
    let mut was_asked = false;
    loop {
        tokio::select! {
            _ = signals.children.recv() => if let Some(status) = reap(supervisor) {
                return match was_asked {
                    true => Cause::Asked,
                    false => own(status, order),
                };
            },
            _ = signals.asked.recv() => {
                was_asked = true;
                // It may be ending by itself.
                let _ = kill_process(supervisor, Signal::TERM);
            }
            _ = signals.killed.recv() => return Cause::Asked,
            () = deadline(order.expire_time_unix_ms) => return Cause::Deadline,
        }
    }
}

/// A pipe that this process alone holds open for writing: whoever reads it is woken by our end,
/// however we end.
fn hold_alive(dir: &Path) -> io::Result<File> {
    let path = dir.join(ALIVE);
    let mode = Mode::RUSR | Mode::WUSR;
    match mknodat(CWD, &path, FileType::Fifo, mode, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // For reading too: for writing alone one waits for a reader.
    OpenOptions::new().read(true).write(true).open(path)
}

/// Starts the supervisor as docs/supervisor.md says.
fn start(dir: &Path, order: &Order) -> io::Result<Pid> {
    // The bootstrap is what is in our stdin. We never read it; the supervisor inherits it as a
    // descriptor that is not one of the first three.
    let bootstrap = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::io::fcntl_setfd(&bootstrap, rustix::io::FdFlags::empty())?;
    let console = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("console.log"))?;
    let callback = format!("dir:{}", order.callback_directory.display());
    let child = Command::new(&order.supervisor)
        .arg0("cofferdam-supervisor")
        .args(["--callback", &callback])
        .args(["--config-fd", &bootstrap.as_raw_fd().to_string()])
        .env_clear()
        .current_dir(dir.join("workspace"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(console)
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("a process without a pid"))
}

/// Takes in all that have ended; how the supervisor did, if it is among them.
fn reap(supervisor: Pid) -> Option<WaitStatus> {
    let mut found = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == supervisor {
            found = Some(status);
        }
    }
    found
}

fn own(status: WaitStatus, order: &Order) -> Cause {
    // The supervisor knows the expire time as well, and may be first.
    if now_unix_ms() >= order.expire_time_unix_ms {
        return Cause::Deadline;
    }
    Cause::Own {
        code: status.exit_status(),
        signal: status.terminating_signal(),
    }
}

/// Returns at this time, by the clock on the wall.
pub(crate) async fn deadline(unix_ms: u64) {
    loop {
        let left = Duration::from_millis(unix_ms.saturating_sub(now_unix_ms()));
        if left.is_zero() {
            return;
        }
        sleep(left.min(CLOCK_INTERVAL)).await;
    }
}

/// Ends everything below this process, and returns when nothing is left.
async fn kill_everything() {
    let own = std::process::id().cast_signed();
    loop {
        // First all are stopped, so that none starts another while we kill.
        for signal in [Signal::STOP, Signal::KILL] {
            for pid in descendants(own).into_iter().filter_map(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
        }
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        if descendants(own).is_empty() {
            return;
        }
        sleep(KILL_INTERVAL).await;
    }
}

/// Now, in Unix milliseconds.
pub(crate) fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
