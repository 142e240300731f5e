//! The supervisor's life: set up, serve, end.
//!
//! ```text
//!  serving ──Shutdown, SIGTERM──► SIGTERM to all, grace ──► SIGKILL to all ──► exit 0
//!     ├──────deadline───────────────────────────────────────►┤ exit 124
//!     └──────the gateway wants no more, the stream is gone──►┘ exit 0
//! ```

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::hello::BOOT_ID_BYTES;
use thiserror::Error;
use tokio::runtime;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::args::{BootstrapSource, Callback};
use crate::bootstrap::{self, Bootstrap, BootstrapError};
use crate::callback::{Connector, NoMore, keep_session};
use crate::core::Core;
use crate::hello::Identity;
use crate::init;
use crate::log::log;
use crate::oom::OomCounter;
use crate::process::{Defaults, SPOOL_BYTES_DEFAULT};
use crate::signal::Signal;
use crate::token::Tokens;
use crate::watch;

/// File operations and archives that are under way at once; more of them wait.
const BLOCKING_THREADS_MAX: usize = 16;
/// Threads stay: when a fork bomb has taken the last process id, there can be no new one.
const BLOCKING_THREAD_KEPT: Duration = Duration::from_secs(60 * 60);
const EXIT_DEADLINE: u8 = 124;

/// The supervisor cannot begin.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// What the driver handed in cannot be used.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The system refused something that it must give.
    #[error("cannot set up: {what}")]
    System {
        /// What was refused.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Serves until the sandbox shall end. The result is the exit code.
pub(crate) fn run(callback: &Callback, bootstrap: &BootstrapSource) -> Result<u8, StartError> {
    let failed = |what| move |source| StartError::System { what, source };
    init::hide().map_err(failed("hiding memory"))?;
    // Inherited descriptors first, while no other can have their numbers.
    let bootstrap = bootstrap::read(bootstrap)?;
    let handed = |fd: Option<RawFd>| fd.and_then(|fd| bootstrap::inherited(fd).ok());
    let oom = handed(bootstrap.handed.memory_events);
    let cpu_threads = handed(bootstrap.handed.cpu_threads);
    let connector = Connector::new(callback).map_err(failed("the callback directory"))?;
    let signalfd = init::close_off().map_err(failed("signals"))?;
    let open_files = init::raise_descriptors();
    init::lower_oom_score();
    init::drop_capabilities().map_err(failed("dropping capabilities"))?;

    let mut boot_id = [0; BOOT_ID_BYTES];
    getrandom::fill(&mut boot_id).map_err(|error| failed("randomness")(io::Error::other(error)))?;
    let oom = OomCounter::new(oom);
    let identity = Identity {
        sandbox_id: bootstrap.sandbox_id.clone(),
        boot_id,
        counts_oom_kills: oom.is_there(),
    };
    let defaults = Defaults {
        cpu_threads: cpu_threads.map(Arc::new),
        ..defaults(&bootstrap, open_files)
    };
    let expire_time_unix_ms = bootstrap.expire_time_unix_ms;
    let core = Arc::new(Core::new(identity, defaults, expire_time_unix_ms, oom));

    let runtime = runtime(bootstrap.uid, bootstrap.gid).map_err(failed("the runtime"))?;
    let tokens = Tokens::new(bootstrap.token);
    let code = runtime.block_on(live(core, connector, tokens, signalfd));
    // A file operation may hang in the kernel; the sandbox is over all the same.
    runtime.shutdown_background();
    code.map_err(failed("signals and the deadline"))
}

fn defaults(bootstrap: &Bootstrap, open_files: libc::rlimit) -> Defaults {
    Defaults {
        uid: bootstrap.uid,
        gid: bootstrap.gid,
        user: bootstrap.user.clone(),
        home: bootstrap.home.clone(),
        workspace: bootstrap.workspace.clone(),
        oom_score_adj: bootstrap.oom_score_adj,
        open_files,
        cpu_threads: None,
        environment: Vec::new(),
        image_environment: bootstrap.environment.clone(),
        spool_bytes: SPOOL_BYTES_DEFAULT,
        own: (
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        ),
    }
}

fn runtime(uid: u32, gid: u32) -> io::Result<runtime::Runtime> {
    let changes_user = init::can_become_for_files(uid, gid);
    if !changes_user {
        log!("file operations run as the supervisor, who cannot become {uid}:{gid}");
    }
    runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_KEPT)
        .thread_name("files")
        .on_thread_start(move || init::become_for_files(uid, gid))
        .build()
}

async fn live(
    core: Arc<Core>,
    connector: Connector,
    tokens: Tokens,
    signalfd: OwnedFd,
) -> io::Result<u8> {
    let tasks = TaskTracker::new();
    let mut signals = tasks.spawn(watch::signals(signalfd, Arc::clone(&core)));
    // The session goes on while things end, so that the gateway sees how.
    let mut session = tasks.spawn(keep_session(connector, Arc::clone(&core), tokens));
    let code = tokio::select! {
        expired = watch::deadline(&core) => {
            expired?;
            log!("the deadline has come: the sandbox ends");
            EXIT_DEADLINE
        }
        () = end_gracefully(&core) => 0,
        no_more = &mut session => {
            match no_more {
                Ok(NoMore::SandboxGone) => log!("the gateway wants no more of this sandbox"),
                Ok(NoMore::StreamEnded) => log!("the only stream to a gateway has ended"),
                Err(error) => log!("the session's task failed: {error}"),
            }
            0
        }
        failed = &mut signals => {
            log!("the signals' task failed");
            failed.map_err(io::Error::other)??;
            1
        }
    };
    core.kill_everything().await;
    core.tasks.close();
    session.abort();
    signals.abort();
    tasks.close();
    tasks.wait().await;
    Ok(code)
}

/// Waits until somebody asks for the end, then for the processes to heed it.
async fn end_gracefully(core: &Core) {
    let mut ending = core.ending.subscribe();
    let first = ending.wait_for(Option::is_some).await.map(|grace| *grace);
    let Ok(Some(mut grace)) = first else { return };
    if !grace.is_zero() {
        core.signal_everything(Signal::TERMINATE).await;
    }
    while !grace.is_zero() {
        tokio::select! {
            // All have ended, or have had their time.
            _ = timeout(grace, core.reaper.childless()) => return,
            changed = ending.changed() => {
                if changed.is_err() {
                    return;
                }
                grace = ending.borrow_and_update().unwrap_or_default();
            }
        }
    }
}
