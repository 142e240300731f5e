//! Talking to a shim that runs.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::request::Bootstrap;
use crate::sandbox::control::{Request, Response, Status};
use crate::sandbox::layout::{CONTROL_SOCKET, run_dir};
use crate::sandbox::report::Failure;

/// No answer is longer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// A control request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens: the shim is gone, or never was.
    #[error("cannot reach the shim in {}", state_dir.display())]
    Unreachable {
        /// The sandbox's state directory.
        state_dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke: the shim may or may not have done it.
    #[error("lost the shim in {}", state_dir.display())]
    Lost {
        /// The sandbox's state directory.
        state_dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The shim says no.
    #[error("the shim refused")]
    Refused(#[source] Failure),
    /// No answer in time; the request stays under way.
    #[error("the shim did not answer within {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
}

/// A shim, addressed by its state directory. Each call is a connection of its own, so any number
/// may be under way; a call that is dropped is not undone.
#[derive(Debug, Clone)]
pub struct ShimControl {
    state_dir: PathBuf,
}

impl ShimControl {
    /// The shim of this sandbox.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        ShimControl {
            state_dir: state_dir.into(),
        }
    }

    /// Starts the init again, with a new bootstrap.
    pub async fn start(
        &self,
        bootstrap: &Bootstrap,
        limit: Duration,
    ) -> Result<Status, ControlError> {
        self.call(
            &Request::Start {
                bootstrap: bootstrap.json().to_owned(),
            },
            limit,
        )
        .await
    }

    /// SIGTERM, and SIGKILL after `grace`. Returns when the init is gone; `limit` must be longer.
    pub async fn stop(&self, grace: Duration, limit: Duration) -> Result<Status, ControlError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.call(&Request::Stop { grace_ms }, limit).await
    }

    /// SIGKILL. Returns when the init is gone.
    pub async fn kill(&self, limit: Duration) -> Result<Status, ControlError> {
        self.call(&Request::Kill, limit).await
    }

    /// How things stand.
    pub async fn status(&self, limit: Duration) -> Result<Status, ControlError> {
        self.call(&Request::Status, limit).await
    }

    /// Returns when no init of this generation runs. A watcher's call: it renews it on timeout.
    pub async fn wait(&self, generation: u64, limit: Duration) -> Result<Status, ControlError> {
        self.call(&Request::Wait { generation }, limit).await
    }

    /// Moves the deadline; 0 means never.
    pub async fn set_expire(&self, unix_ms: u64, limit: Duration) -> Result<Status, ControlError> {
        self.call(
            &Request::SetExpire {
                expire_time_unix_ms: unix_ms,
            },
            limit,
        )
        .await
    }

    /// Kills the init and ends the shim, with a record.
    pub async fn terminate(&self, limit: Duration) -> Result<Status, ControlError> {
        self.call(&Request::Terminate, limit).await
    }

    async fn call(&self, request: &Request, limit: Duration) -> Result<Status, ControlError> {
        let exchange = tokio::time::timeout(limit, self.exchange(request));
        match exchange
            .await
            .map_err(|_| ControlError::Timeout { limit })??
        {
            Response::Ok(status) => Ok(status),
            Response::Refused(failure) => Err(ControlError::Refused(failure)),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Response, ControlError> {
        let unreachable = |source| ControlError::Unreachable {
            state_dir: self.state_dir.clone(),
            source,
        };
        let lost = |source| ControlError::Lost {
            state_dir: self.state_dir.clone(),
            source,
        };
        let mut stream = connect(&self.state_dir).await.map_err(unreachable)?;
        let mut line = Zeroizing::new(serde_json::to_vec(request).map_err(|e| lost(e.into()))?);
        line.push(b'\n');
        stream.write_all(&line).await.map_err(lost)?;
        let mut answer = String::new();
        BufReader::new(stream.take(ANSWER_BYTES_MAX))
            .read_line(&mut answer)
            .await
            .map_err(lost)?;
        if !answer.ends_with('\n') {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        serde_json::from_str(&answer).map_err(|error| lost(error.into()))
    }
}

/// Connects below the directory's descriptor: a socket address holds 108 bytes, a path may be
/// longer.
async fn connect(state_dir: &Path) -> io::Result<UnixStream> {
    let dir = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(run_dir(state_dir))?;
    UnixStream::connect(format!(
        "/proc/self/fd/{}/{CONTROL_SOCKET}",
        dir.as_raw_fd()
    ))
    .await
}
