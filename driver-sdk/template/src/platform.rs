//! The platform: what makes, finds, signals and unmakes sandboxes.
//!
//! REPLACE: talk to your engine, hypervisor or cloud here. Whatever it is, keep to this:
//!
//! - [`launch`] returns when the platform has taken over, the expire time included; an error leaves
//!   nothing behind;
//! - [`observe`] asks the platform itself, and tells "it is not there" from "I could not ask";
//! - [`destroy`] works from every state, and again.

use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cofferdam_driver_sdk::supervisor::{Bootstrap, SupervisorBinary};
use cofferdam_driver_sdk::{Context, DriverError};
use rustix::fd::AsFd as _;
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::keeper::{self, Boot, Cause, End, Order, now_unix_ms};
use crate::plan::Plan;
use crate::process::ProcessId;
use crate::record::{self, Record};

/// Between two looks at what takes milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// What the platform says of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Observation {
    /// There is nothing, or not yet.
    Absent,
    Running(Boot),
    Ended(Boot, End),
}

/// Why a sandbox could not be launched, or not be removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlatformError {
    #[error("cannot make {path}")]
    Make {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot start the keeper {program}")]
    Spawn {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("the sandbox could not be started: {why}")]
    NotStarted { why: String },
    #[error("the launch took longer than {0:?}")]
    Slow(Duration),
    #[error("its processes do not end")]
    Stuck,
    #[error("cannot remove {path}")]
    Remove {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl From<PlatformError> for DriverError {
    /// The one place where failures of the platform get a code: by who has to act.
    fn from(error: PlatformError) -> Self {
        let text = error.to_string();
        match &error {
            // The operator: nothing gets better by waiting.
            PlatformError::Spawn { program, .. } => Self::precondition(
                "KEEPER",
                program.clone(),
                text,
                format!("make {program} executable for the driver's user"),
            ),
            PlatformError::Make { path, source } if is_denied(source) => Self::precondition(
                "STATE_DIR",
                path.clone(),
                text,
                format!("make {path} writable for the driver's user, or set state_dir"),
            ),
            PlatformError::Make { source, .. } if is_full(source) => {
                Self::exhausted("disk", text, None)
            }
            PlatformError::NotStarted { .. } => Self::precondition(
                "SUPERVISOR",
                "supervisor",
                text,
                "run the gateway's supervisor by hand: it has to start on this host",
            ),
            // Nobody: the same call may work in a moment.
            PlatformError::Make { .. }
            | PlatformError::Slow(_)
            | PlatformError::Stuck
            | PlatformError::Remove { .. } => Self::unavailable(text),
        }
        .because(error)
    }
}

fn is_denied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Makes the directories of a sandbox, with the workspace its workload's own.
pub(crate) fn make(dir: &Path, plan: &Plan) -> Result<(), PlatformError> {
    let workspace = dir.join("workspace");
    let made = (|| {
        // The workload may be another user, and passes through on its way to the workspace.
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o711).create(&workspace)?;
        std::os::unix::fs::chown(&workspace, Some(plan.uid), Some(plan.gid))
    })();
    made.map_err(|source| PlatformError::Make {
        path: workspace.display().to_string(),
        source,
    })
}

/// What is to be launched.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) record: &'a Record,
    pub(crate) boot: u64,
    pub(crate) supervisor: &'a SupervisorBinary,
    pub(crate) bootstrap: &'a Bootstrap,
}

/// Starts a keeper, and returns when it has begun. It is not ours to end: dropping this future
/// leaves it running, to be found by the next look.
pub(crate) async fn launch(
    context: &Context,
    config: &Config,
    launch: Launch<'_>,
) -> Result<(), PlatformError> {
    let Launch {
        dir,
        record,
        boot,
        supervisor,
        bootstrap,
    } = launch;
    let order = Order {
        boot,
        // The verified bytes, in memory of this process, which is there until the keeper has them.
        supervisor: format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            supervisor.as_fd().as_raw_fd()
        )
        .into(),
        callback_directory: record.callback_directory.clone(),
        expire_time_unix_ms: record.plan.expire_time_unix_ms,
        nice: record.plan.nice,
    };
    let spawned = record::write(&dir.join("order.json"), &order)
        .map_err(|source| PlatformError::Make {
            path: dir.display().to_string(),
            source,
        })
        .and_then(|()| spawn(config, dir, bootstrap));
    let keeper = spawned?;
    let begun = Instant::now();
    let outcome = loop {
        match observe(dir) {
            Observation::Running(seen) if seen.boot == boot => break Ok(()),
            Observation::Ended(seen, _) if seen.boot == boot => break Ok(()),
            _ if begun.elapsed() > config.launch_timeout => {
                break Err(PlatformError::Slow(config.launch_timeout));
            }
            _ if has_ended(&keeper) => {
                let why = last_words(dir);
                break Err(PlatformError::NotStarted { why });
            }
            _ => sleep(LOOK_INTERVAL).await,
        }
    };
    reap_later(context, keeper);
    outcome
}

fn spawn(config: &Config, dir: &Path, bootstrap: &Bootstrap) -> Result<Child, PlatformError> {
    let failed = |source| PlatformError::Spawn {
        program: config.keeper.display().to_string(),
        source,
    };
    let console = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("console.log"));
    let (reader, mut writer) = io::pipe().map_err(failed)?;
    let child = Command::new(&config.keeper)
        .arg(keeper::COMMAND)
        .arg(dir)
        .env_clear()
        .stdin(reader)
        .stdout(Stdio::null())
        .stderr(console.map_err(failed)?)
        .kill_on_drop(false)
        .spawn()
        .map_err(failed)?;
    // At most 64 KiB, which a pipe takes. The token is in it, and nowhere else.
    writer
        .write_all(bootstrap.to_json().as_bytes())
        .map_err(failed)?;
    Ok(child)
}

fn has_ended(keeper: &Child) -> bool {
    let pid = keeper.id().and_then(|pid| i32::try_from(pid).ok());
    !pid.is_some_and(|pid| ProcessId::of(pid).is_ok_and(ProcessId::is_alive))
}

/// What a keeper said before it gave up.
fn last_words(dir: &Path) -> String {
    let console = std::fs::read(dir.join("console.log")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let line = console.lines().last().unwrap_or("the keeper said nothing");
    line.to_owned()
}

/// While the driver lives, a keeper that has ended must not stay a zombie.
fn reap_later(context: &Context, mut keeper: Child) {
    let shutdown = context.shutdown.clone();
    context.tasks.spawn(async move {
        tokio::select! {
            _ = keeper.wait() => {}
            // From then on it is another process's child.
            () = shutdown.cancelled() => {}
        }
    });
}

/// Looks at the platform itself. Blocks briefly.
pub(crate) fn observe(dir: &Path) -> Observation {
    // A file that cannot be read is as good as none: what is running is found by its process.
    let boot: Option<Boot> = record::read(&dir.join("boot.json")).ok().flatten();
    let Some(boot) = boot else {
        return Observation::Absent;
    };
    // In this order: when the keeper is dead, all that it wrote can be read.
    if boot.keeper.is_alive() {
        return Observation::Running(boot);
    }
    let end = recorded_end(dir, boot.boot).unwrap_or_else(|| End {
        boot: boot.boot,
        cause: Cause::Lost,
        time_unix_ms: now_unix_ms(),
    });
    Observation::Ended(boot, end)
}

fn recorded_end(dir: &Path, boot: u64) -> Option<End> {
    let end: Option<End> = record::read(&dir.join(keeper::END)).ok().flatten();
    end.filter(|end| end.boot == boot)
}

/// The same; an end that nobody has seen is written down, so that the same is said at every look,
/// also by the next driver.
pub(crate) fn observe_and_record(dir: &Path) -> Observation {
    let observation = observe(dir);
    if let Observation::Ended(_, end) = &observation
        && recorded_end(dir, end.boot).is_none()
        && let Err(error) = record::write(&dir.join(keeper::END), end)
    {
        tracing::warn!(dir = %dir.display(), %error, "the end of a sandbox was not recorded");
    }
    observation
}

/// Waits for the end of a boot. False: it has not ended in this time.
pub(crate) async fn ended(dir: &Path, boot: &Boot, within: Duration) -> bool {
    let pipe = pipe::OpenOptions::new().open_receiver(dir.join(keeper::ALIVE));
    // Opened first: a keeper that lives on holds the other end, and its end wakes us.
    if !boot.keeper.is_alive() {
        return true;
    }
    let gone = async {
        match pipe {
            // One that is ending has closed its end already, and nothing more comes from a pipe
            // that had no writer when it was opened.
            Ok(pipe) if rustix::io::read(&pipe, &mut [0; 1]) != Err(Errno::AGAIN) => {}
            // An error is news as well: look.
            Ok(pipe) => drop(pipe.readable().await),
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "cannot wait for a keeper");
            }
        }
        // A process that ends closes what it has open a moment before it is dead.
        while boot.keeper.is_alive() {
            sleep(LOOK_INTERVAL).await;
        }
    };
    timeout(within, gone).await.is_ok()
}

/// Ends a boot: asks, kills after `grace`. True when nothing of it runs any more.
pub(crate) async fn end(
    dir: &Path,
    boot: &Boot,
    grace: Duration,
    limit: Duration,
) -> io::Result<bool> {
    if !grace.is_zero() {
        boot.keeper.signal(Signal::TERM)?;
        if ended(dir, boot, grace).await {
            return Ok(true);
        }
    }
    boot.keeper.signal(Signal::USR1)?;
    Ok(ended(dir, boot, limit).await)
}

/// Removes a sandbox with all that belongs to it, whatever state it is in. May be repeated.
pub(crate) async fn destroy(dir: &Path, limit: Duration) -> Result<(), PlatformError> {
    let remove = |source| PlatformError::Remove {
        path: dir.display().to_string(),
        source,
    };
    if let Observation::Running(boot) = observe(dir)
        && !end(dir, &boot, Duration::ZERO, limit)
            .await
            .map_err(remove)?
    {
        return Err(PlatformError::Stuck);
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(remove(error)),
        _ => Ok(()),
    }
}
