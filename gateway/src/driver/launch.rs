//! A built-in driver's process: its socket, its start, its death, its next start.
//!
//! The gateway binds the socket and keeps it open, so connections made while no process runs wait
//! in its queue for the next one. The process inherits the listener as descriptor 3, and as stdin
//! a pipe that nobody writes to: it reads its end when the gateway has died, however it died. One
//! that lives on then is ended by the next gateway. When somebody has removed the socket's file, a
//! new one is bound, for a new process.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::log::{LastWords, forward};
use super::predecessor;
use super::process::{bind, cannot_start, command, ended, terminate};
use super::shared::Shared;
use super::trouble::Trouble;

/// How long the last lines of a dead process may take to arrive: its children may hold its pipes.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(200);
/// Whether the process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Process {
    /// On its way, for the first time.
    Starting,
    Up,
    Down(Trouble),
}

/// The view on the process that the driver's task has.
#[derive(Debug, Clone)]
pub(super) struct ProcessWatch {
    process: watch::Receiver<Process>,
    restart: Arc<Notify>,
}

impl ProcessWatch {
    /// Waits until it runs. Keeps the view's error true until then.
    pub(super) async fn up(&mut self, shared: &Shared) {
        loop {
            match &*self.process.borrow_and_update() {
                Process::Up => return,
                Process::Down(trouble) => shared.disconnect(false, &trouble.error, &trouble.fix),
                Process::Starting => {}
            }
            if self.process.changed().await.is_err() {
                // The launcher has ended, and so will whoever waits here.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it has ended.
    pub(super) async fn down(&mut self) -> Trouble {
        loop {
            if let Process::Down(trouble) = &*self.process.borrow_and_update() {
                return trouble.clone();
            }
            if self.process.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Has it killed, to be started anew. Returns when it has ended.
    pub(super) async fn restart(&mut self) {
        self.restart.notify_one();
        self.down().await;
    }
}

/// A listener, and which file leads to it.
#[derive(Debug)]
struct Bound {
    listener: UnixListener,
    file: Option<(u64, u64)>,
}

impl Bound {
    fn new(socket: &Path) -> Result<Self, Trouble> {
        let listener = bind(socket)?;
        let file = identity(socket);
        Ok(Self { listener, file })
    }

    fn is_in_place(&self, socket: &Path) -> bool {
        self.file.is_some() && identity(socket) == self.file
    }
}

/// Of a file: its device and its inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let about = std::fs::symlink_metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}

/// Keeps one program running.
#[derive(Debug)]
pub(super) struct Launcher {
    shared: Arc<Shared>,
    program: PathBuf,
    socket: PathBuf,
    process: watch::Sender<Process>,
    restart: Arc<Notify>,
    cancel: CancellationToken,
}

impl Launcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        program: PathBuf,
        socket: PathBuf,
        cancel: CancellationToken,
    ) -> (Self, ProcessWatch) {
        let (process, watch) = watch::channel(Process::Starting);
        let restart = Arc::new(Notify::new());
        let process_watch = ProcessWatch {
            process: watch,
            restart: restart.clone(),
        };
        let launcher = Self {
            shared,
            program,
            socket,
            process,
            restart,
            cancel,
        };
        (launcher, process_watch)
    }

    /// Runs until cancelled; then the process has ended.
    pub(super) async fn run(self) {
        let timing = self.shared.timing.clone();
        if let Err(error) = predecessor::end(&self.socket, timing.stop_grace).await {
            let driver = &self.shared.name;
            tracing::warn!(driver.name = %driver, %error, "cannot end an earlier driver process");
        }
        let mut pause = timing.backoff_min;
        let mut listener: Option<Bound> = None;
        loop {
            // Nobody finds a socket whose file is gone, or another's.
            drop(listener.take_if(|bound| !bound.is_in_place(&self.socket)));
            let started = Instant::now();
            let trouble = self.once(&mut listener).await;
            predecessor::forget(&self.socket);
            if self.cancel.is_cancelled() {
                break;
            }
            tracing::error!(driver.name = %self.shared.name, error = trouble.error, "driver down");
            self.shared.update(|view| view.pid = None);
            self.process.send_replace(Process::Down(trouble));
            if started.elapsed() >= timing.backoff_reset {
                pause = timing.backoff_min;
            }
            let slept = self.cancel.run_until_cancelled(sleep(pause));
            if slept.await.is_none() {
                break;
            }
            pause = (pause * 2).min(timing.backoff_max);
        }
        // The next gateway binds a new one.
        let _ = std::fs::remove_file(&self.socket);
    }

    /// One life of the process.
    async fn once(&self, listener: &mut Option<Bound>) -> Trouble {
        let bound = match listener {
            Some(bound) => bound,
            None => match Bound::new(&self.socket) {
                Ok(bound) => listener.insert(bound),
                Err(trouble) => return trouble,
            },
        };
        let mut child = match command(&self.program, &bound.listener).spawn() {
            Ok(child) => child,
            Err(error) => return cannot_start(&self.program, &error),
        };
        // What was wished of an earlier process.
        let _earlier = self.restart.notified().now_or_never();
        tracing::info!(driver.name = %self.shared.name, pid = child.id(), "driver started");
        if let Some(pid) = child.id() {
            predecessor::remember(&self.socket, pid);
        }
        self.shared.update(|view| view.pid = child.id());
        self.process.send_replace(Process::Up);
        // Its other end closes when this gateway is gone.
        let _stdin = child.stdin.take();
        let last_words = LastWords::default();
        let mut lines = tokio::task::JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            lines.spawn(forward(stdout, self.shared.name.clone(), None));
        }
        if let Some(stderr) = child.stderr.take() {
            let last_words = last_words.clone();
            lines.spawn(forward(stderr, self.shared.name.clone(), Some(last_words)));
        }
        let status = self.wait(&mut child).await;
        let _ = timeout(LAST_WORDS_WAIT, async {
            while lines.join_next().await.is_some() {}
        })
        .await;
        ended(&self.program, status, &last_words.get())
    }

    /// Until it ends by itself, is unwanted, or has to be started anew.
    async fn wait(&self, child: &mut Child) -> std::io::Result<ExitStatus> {
        tokio::select! {
            status = child.wait() => return status,
            () = self.restart.notified() => {
                tracing::error!(driver.name = %self.shared.name, "driver cannot be reached: killed");
                // Stopped processes do not hear anything else.
                child.start_kill()?;
            }
            () = self.cancel.cancelled() => {
                terminate(child);
                if let Ok(status) = timeout(self.shared.timing.stop_grace, child.wait()).await {
                    return status;
                }
                tracing::warn!(driver.name = %self.shared.name, "driver did not end: killed");
                child.start_kill()?;
            }
        }
        child.wait().await
    }
}
