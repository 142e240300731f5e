//! What all calls share: the processes, what they inherit, and how it all ends.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cofferdam_proto::supervisor::v1::EnvironmentVariable;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::files::Workspace;
use crate::hello::Identity;
use crate::killer::Killer;
use crate::oom::OomCounter;
use crate::process::{Defaults, Process, Table};
use crate::reap::Reaper;
use crate::signal::Signal;
use crate::tree::{self, Roots};

/// A tree that outlasts this holds a process that sleeps in the kernel; it is tried again.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// Half of the threads for blocking work, so that other file operations always find one.
const ARCHIVES_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) identity: Identity,
    pub(crate) started: Instant,
    pub(crate) table: Table,
    pub(crate) reaper: Reaper,
    pub(crate) tasks: TaskTracker,
    pub(crate) workspace: Workspace,
    /// Each archive under way takes one.
    pub(crate) archive_turns: Arc<Semaphore>,
    /// When to end, Unix time in ms; 0 for never.
    pub(crate) expire_time_unix_ms: watch::Sender<u64>,
    /// As the bootstrap says, for a `Configure` that says nothing.
    pub(crate) first_expire_time_unix_ms: u64,
    /// Set once the sandbox shall end: how long processes have after SIGTERM. May become shorter.
    pub(crate) ending: watch::Sender<Option<Duration>>,
    defaults: Mutex<Arc<Defaults>>,
    killer: Killer,
}

impl Core {
    pub(crate) fn new(
        identity: Identity,
        defaults: Defaults,
        expire_time_unix_ms: u64,
        oom: OomCounter,
    ) -> Self {
        let (reaper, tasks) = (Reaper::default(), TaskTracker::new());
        Self {
            identity,
            started: Instant::now(),
            table: Table::new(reaper.clone(), tasks.clone(), oom),
            reaper,
            tasks,
            workspace: Workspace::new(defaults.workspace.clone()),
            archive_turns: Arc::new(Semaphore::new(ARCHIVES_MAX)),
            expire_time_unix_ms: watch::channel(expire_time_unix_ms).0,
            first_expire_time_unix_ms: expire_time_unix_ms,
            ending: watch::channel(None).0,
            defaults: Mutex::new(Arc::new(defaults)),
            killer: Killer::new(),
        }
    }

    /// Makes the threads that must be there before the first process is. Off the way to the gateway,
    /// which waits for the hello.
    pub(crate) fn start_threads(&self) -> io::Result<()> {
        self.killer.start()?;
        // With one thread there, file operations wait for it when no other can be made; with none
        // they would fail.
        drop(tokio::task::spawn_blocking(|| ()));
        Ok(())
    }

    /// What a process started now inherits.
    pub(crate) fn defaults(&self) -> Arc<Defaults> {
        Arc::clone(&self.defaults.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what later processes inherit.
    pub(crate) fn configure(&self, environment: Vec<EnvironmentVariable>, spool_bytes: u64) {
        let mut defaults = self.defaults.lock().unwrap_or_else(PoisonError::into_inner);
        *defaults = Arc::new(Defaults {
            environment,
            spool_bytes,
            ..Defaults::clone(&defaults)
        });
    }

    /// Asks for the end of the sandbox. The shortest grace wins.
    pub(crate) fn end(&self, grace: Duration) {
        self.ending.send_if_modified(|ending| match ending {
            Some(earlier) if *earlier <= grace => false,
            _ => {
                *ending = Some(grace);
                true
            }
        });
    }

    /// Signals every process of a tree.
    pub(crate) async fn signal_tree(&self, roots: Roots, signal: Signal) {
        let reaper = self.reaper.clone();
        self.killer
            .run(move || tree::signal_all(&roots, &reaper, signal))
            .await;
    }

    /// Ends the tree of a process and returns how many had to be killed.
    ///
    /// Cancelled in the grace, it leaves the tree with a SIGTERM and otherwise alone.
    pub(crate) async fn kill_tree(&self, process: &Process, grace: Duration) -> u32 {
        let Some(roots) = process.roots() else {
            return 0;
        };
        if !grace.is_zero() {
            let strays = roots.strays;
            self.signal_tree(roots, Signal::TERMINATE).await;
            if timeout(grace, process.tree_gone()).await.is_ok() && !strays {
                return 0;
            }
        }
        let mut killed = 0;
        while let Some(roots) = process.roots() {
            let strays = roots.strays;
            killed += self.kill(roots).await;
            // With a live shim, its end is the proof. Without one, the look that found nobody is.
            if timeout(KILL_PATIENCE, process.tree_gone()).await.is_ok() || strays {
                break;
            }
        }
        killed
    }

    /// Ends everything below the supervisor.
    pub(crate) async fn kill_everything(&self) {
        let own = i32::try_from(std::process::id()).unwrap_or(1);
        self.kill(Roots {
            above: vec![own],
            lost: None,
            strays: true,
        })
        .await;
    }

    /// Sends a signal to everything below the supervisor.
    pub(crate) async fn signal_everything(&self, signal: Signal) {
        let own = i32::try_from(std::process::id()).unwrap_or(1);
        self.signal_tree(
            Roots {
                above: vec![own],
                lost: None,
                strays: true,
            },
            signal,
        )
        .await;
    }

    async fn kill(&self, roots: Roots) -> u32 {
        let reaper = self.reaper.clone();
        let kill = move || tree::kill_all(&roots, &reaper, KILL_PATIENCE);
        self.killer.run(kill).await.unwrap_or(0)
    }
}
