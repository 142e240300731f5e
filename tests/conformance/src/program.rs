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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::recorder::Recorder;

/// What is kept of each of its output streams: the last so many bytes.
const LOG_BYTES_MAX: usize = 64 * 1024;

/// Longer than any form of a secret: one that lies across two reads is found all the same.
const OVERLAP_BYTES: usize = 1024;

/// Between two attempts to reach a driver that has just been started.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Until nobody else listens on the socket.
const FREE_PATIENCE: Duration = Duration::from_secs(10);

/// After SIGTERM, until SIGKILL.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// Between the ends of its connections, as a case sees them, and its own end, as the kernel tells it:
/// a memory image may be written first.
const CRASH_NOTICE: Duration = Duration::from_secs(3);

/// The command, and the process that it is now.
#[derive(Debug)]
pub(crate) struct Program {
    command: Vec<OsString>,
    socket: PathBuf,
    patience: Duration,
    log: Log,
    child: tokio::sync::Mutex<Option<Child>>,
    /// Who reads what it writes.
    readers: TaskTracker,
    closed: CancellationToken,
}

/// What it wrote to stdout and stderr.
#[derive(Debug, Clone)]
struct Log {
    recorder: Recorder,
    stdout: Kept,
    stderr: Kept,
}

/// The end of one of its output streams.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Program {
    pub(crate) fn new(
        command: Vec<OsString>,
        socket: PathBuf,
        patience: Duration,
        recorder: Recorder,
    ) -> Self {
        Self {
            command,
            socket,
            patience,
            log: Log {
                recorder,
                stdout: Kept::default(),
                stderr: Kept::default(),
            },
            child: tokio::sync::Mutex::default(),
            readers: TaskTracker::new(),
            closed: CancellationToken::new(),
        }
    }

    /// Starts it, and waits until somebody listens on the socket. Cancelled here, it is there, and
    /// `close` ends it.
    pub(crate) async fn start(&self) -> Result<(), String> {
        let mut child = self.child.lock().await;
        let shown = self.shown();
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
        self.read(&self.log.stdout, started.stdout.take());
        self.read(&self.log.stderr, started.stderr.take());
        let listens = self.listens(child.insert(started)).await;
        if listens.is_err() {
            // Dropped, and so killed.
            child.take();
        }
        listens
    }

    fn shown(&self) -> String {
        let words = self.command.iter().map(|word| word.to_string_lossy());
        words.collect::<Vec<_>>().join(" ")
    }

    /// Waits until somebody listens on the socket.
    async fn listens(&self, started: &mut Child) -> Result<(), String> {
        let shown = self.shown();
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

    /// Whether it was started, and not ended since by the suite.
    pub(crate) async fn is_started(&self) -> bool {
        self.child.lock().await.is_some()
    }

    /// How it has ended, if it did so by itself; then it may be started again. When there is reason
    /// to think so, its end is waited for a moment.
    pub(crate) async fn crashed(&self, is_likely: bool) -> Option<String> {
        let mut child = self.child.lock().await;
        let notice = if is_likely {
            CRASH_NOTICE
        } else {
            Duration::ZERO
        };
        let status = match timeout(notice, child.as_mut()?.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => return None,
        };
        child.take();
        Some(format!(
            "the driver has ended by itself ({status}); its last words: {}",
            self.log.tail()
        ))
    }

    /// Ends it, and stops listening to it.
    pub(crate) async fn close(&self) {
        // Whether it ends when it is asked to is what `faults.restart.asked` tries.
        let _ = self.end().await;
        self.closed.cancel();
        self.readers.close();
        self.readers.wait().await;
    }

    /// Keeps what comes, until it ends: with the process, or with whoever inherited it.
    fn read(&self, kept: &Kept, from: Option<impl AsyncRead + Unpin + Send + 'static>) {
        let Some(from) = from else { return };
        let (recorder, kept) = (self.log.recorder.clone(), kept.clone());
        let closed = self.closed.clone();
        self.readers.spawn(async move {
            let reading = read_log(from, &kept, &recorder);
            closed.run_until_cancelled(reading).await;
        });
    }
}

async fn read_log(mut from: impl AsyncRead + Unpin, kept: &Kept, recorder: &Recorder) {
    let mut buffer = vec![0; 4096];
    let mut searched = Vec::new();
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        searched.extend_from_slice(&buffer[..count]);
        recorder.text("the driver's log", &searched);
        let excess = searched.len().saturating_sub(OVERLAP_BYTES);
        searched.drain(..excess);
        kept.add(&buffer[..count]);
    }
}

impl Kept {
    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        let excess = kept.len().saturating_sub(LOG_BYTES_MAX);
        kept.drain(..excess);
    }

    /// The last lines, on one.
    fn tail(&self) -> String {
        const LINES: usize = 5;
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join(" | ")
    }
}

impl Log {
    /// Its last words: on stderr, as is usual, or else on stdout.
    fn tail(&self) -> String {
        let said = [self.stderr.tail(), self.stdout.tail()];
        let words = said.into_iter().find(|words| !words.is_empty());
        words.unwrap_or_else(|| "(none)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_found_wherever_reads_cut_it_and_however_much_follows() {
        let recorder = Recorder::default();
        recorder.keep_secret("a token", b"0123456789abcdef");
        let (mut driver, log) = tokio::io::duplex(4 * LOG_BYTES_MAX);
        let write = async {
            use tokio::io::AsyncWriteExt as _;
            let noise = vec![b'x'; 4090];
            driver.write_all(&noise).await.unwrap();
            // From the last bytes of the first read to the second one.
            driver.write_all(b"0123456789abcdef").await.unwrap();
            driver
                .write_all(&vec![b'y'; 2 * LOG_BYTES_MAX])
                .await
                .unwrap();
            drop(driver);
        };
        let kept = Kept::default();
        tokio::join!(write, read_log(log, &kept, &recorder));
        let leaks = recorder.tell_leaks(|_| true);
        assert_eq!(leaks, ["a token (as it is) is in the driver's log"]);
        assert!(kept.tail().bytes().all(|byte| byte == b'y'));
        assert_eq!(kept.tail().len(), LOG_BYTES_MAX);
    }
}
