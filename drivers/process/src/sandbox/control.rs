//! The control socket's protocol: one JSON object a line, one answer for each request, in order.
//!
//! Who may connect is decided by the file system: the socket lies in a directory that only the
//! driver's user (and the shim) can enter.

use serde::{Deserialize, Serialize};

use super::record::{ExitRecord, RunRecord};
use super::report::Failure;

/// No request line is longer: a bootstrap of 64 KiB, escaped.
pub const REQUEST_BYTES_MAX: usize = 160 * 1024;
/// Longest bootstrap.
pub const BOOTSTRAP_BYTES_MAX: usize = 64 * 1024;

/// What the driver may ask of a shim.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Starts the init again. Refused while one runs, and after the deadline.
    Start {
        /// The new supervisor's bootstrap JSON: secret.
        bootstrap: String,
    },
    /// SIGTERM, then SIGKILL after the grace. Answered when the init is gone; done at once when
    /// none runs.
    Stop {
        /// Milliseconds between the two signals; 0 kills at once.
        grace_ms: u64,
    },
    /// SIGKILL. Answered when the init is gone.
    Kill,
    /// Answered at once.
    Status,
    /// Answered as soon as no init of this generation runs.
    Wait {
        /// The generation the caller knows.
        generation: u64,
    },
    /// Moves the deadline.
    SetExpire {
        /// Milliseconds since 1970; 0 means never.
        expire_time_unix_ms: u64,
    },
    /// Kills the init and ends the shim. Answered when the init is gone.
    Terminate,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Request::Start { .. } => out.write_str("Start { bootstrap: <redacted> }"),
            Request::Stop { grace_ms } => write!(out, "Stop {{ grace_ms: {grace_ms} }}"),
            Request::Kill => out.write_str("Kill"),
            Request::Status => out.write_str("Status"),
            Request::Wait { generation } => write!(out, "Wait {{ generation: {generation} }}"),
            Request::SetExpire {
                expire_time_unix_ms,
            } => {
                write!(
                    out,
                    "SetExpire {{ expire_time_unix_ms: {expire_time_unix_ms} }}"
                )
            }
            Request::Terminate => out.write_str("Terminate"),
        }
    }
}

/// The answer to any request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Done; this is how things stand now.
    Ok(Status),
    /// Not done.
    Refused(Failure),
}

/// How a sandbox stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The init that runs, if one does.
    pub running: Option<RunRecord>,
    /// A stop is under way.
    pub stopping: bool,
    /// How many times an init was started.
    pub generation: u64,
    /// How the last init ended.
    pub last_exit: Option<ExitRecord>,
    /// Milliseconds since 1970; 0 means never.
    pub expire_time_unix_ms: u64,
}
