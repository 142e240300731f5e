//! A driver that the suite starts itself, so that it may also kill it. Nothing else is ever killed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cofferdam_gateway::transport;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// What is kept of its log: the last so many bytes.
const LOG_BYTES_MAX: usize = 256 * 1024;

/// Between two attempts to reach a driver that has just been started.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Until nobody else listens on the socket.
const FREE_PATIENCE: Duration = Duration::from_secs(10);

/// After SIGTERM, until SIGKILL.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// The command, and the process that it is now.
#[derive(Debug)]
pub(crate) struct Program {
    command: Vec<OsString>,
    socket: PathBuf,
    patience: Duration,
    log: Log,
    child: tokio::sync::Mutex<Option<Child>>,
}

/// What it wrote to stdout and stderr.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Program {
    pub(crate) fn new(command: Vec<OsString>, socket: PathBuf, patience: Duration) -> Self {
        Self {
            command,
            socket,
            patience,
            log: Log::default(),
            child: tokio::sync::Mutex::default(),
        }
    }

    /// Starts it, and waits until somebody listens on the socket.
    pub(crate) async fn start(&self) -> Result<(), String> {
        let mut child = self.child.lock().await;
        let words: Vec<_> = self
            .command
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        let shown = words.join(" ");
        let Some((program, arguments)) = self.command.split_first() else {
            return Err("the start command is empty".to_owned());
        };
        self.until_free().await?;
        let mut started = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start `{shown}`: {error}"))?;
        self.log.take(started.stdout.take());
        self.log.take(started.stderr.take());
        let end = Instant::now() + self.patience;
        while transport::connect(&self.socket).await.is_err() {
            if let Ok(Some(status)) = started.try_wait() {
                return Err(format!(
                    "`{shown}` ended ({status}) before it listened; its last words: {}",
                    self.log.tail()
                ));
            }
            if Instant::now() >= end {
                return Err(format!(
                    "`{shown}` does not listen on {} after {} s; its last words: {}",
                    self.socket.display(),
                    self.patience.as_secs(),
                    self.log.tail()
                ));
            }
            sleep(LOOK_INTERVAL).await;
        }
        *child = Some(started);
        Ok(())
    }

    /// Waits until nobody listens: a child that a driver was about to start when it was killed holds
    /// the socket until it is another program.
    async fn until_free(&self) -> Result<(), String> {
        let end = Instant::now() + FREE_PATIENCE;
        while transport::connect(&self.socket).await.is_ok() {
            if Instant::now() >= end {
                let socket = self.socket.display();
                return Err(format!(
                    "somebody listens on {socket} already, so the driver cannot be started there"
                ));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) async fn kill(&self) -> Result<(), String> {
        let Some(mut child) = self.child.lock().await.take() else {
            return Err("the driver does not run".to_owned());
        };
        child
            .kill()
            .await
            .map_err(|error| format!("cannot kill the driver: {error}"))
    }

    /// SIGTERM, and how it ended; SIGKILL if it does not. None if it does not run.
    pub(crate) async fn end(&self) -> Option<Result<ExitStatus, String>> {
        let mut child = self.child.lock().await.take()?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        Some(match timeout(END_PATIENCE, child.wait()).await {
            Ok(status) => status.map_err(|error| error.to_string()),
            Err(_) => {
                let _ = child.kill().await;
                Err(format!(
                    "it did not end within {} s of SIGTERM",
                    END_PATIENCE.as_secs()
                ))
            }
        })
    }

    /// Whether it has not ended by itself.
    pub(crate) async fn is_running(&self) -> bool {
        let mut child = self.child.lock().await;
        child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }
}

impl Log {
    /// Keeps what comes, until it ends: with the process, or with whoever inherited it.
    fn take(&self, from: Option<impl AsyncRead + Unpin + Send + 'static>) {
        let Some(mut from) = from else { return };
        let log = self.clone();
        // Ends with the runtime at the latest; nothing waits for it.
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let mut kept = log.0.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..count]);
                let excess = kept.len().saturating_sub(LOG_BYTES_MAX);
                kept.drain(..excess);
            }
        });
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The last lines, on one.
    fn tail(&self) -> String {
        const LINES: usize = 5;
        let bytes = self.bytes();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        match lines[lines.len().saturating_sub(LINES)..].join(" | ") {
            none if none.is_empty() => "(none)".to_owned(),
            some => some,
        }
    }
}
