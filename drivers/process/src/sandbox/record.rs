//! What is on disk: stored forms, each with a version, written whole and renamed into place.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of every record here.
pub const RECORD_VERSION: u32 = 1;

/// What the driver made for a sandbox, written before anything else exists, so that a half-made
/// sandbox can be destroyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The gateway's id.
    pub sandbox_id: String,
    /// The kernel's boot id: under another one, no process of this sandbox can be alive.
    pub boot_id: String,
    /// First host id of the block claimed for it, when the driver is root.
    pub id_block: Option<u32>,
    /// Where that claim is recorded.
    pub id_claims_dir: Option<PathBuf>,
    /// Host uid of shim and supervisor.
    pub host_uid: u32,
    /// Leaf directories in each cgroup hierarchy.
    pub cgroup_dirs: Vec<PathBuf>,
}

/// A process, named so that a reused pid is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Pid in the host's (the driver's) pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_time: u64,
}

/// The init that was started last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// 1 for the first start of the sandbox, one more for each further start.
    pub generation: u64,
    /// The supervisor, PID 1 of the sandbox.
    pub init: ProcessId,
    /// Milliseconds since 1970.
    pub started_at_unix_ms: u64,
}

/// How an init ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// Which start it was; 0 when the sandbox expired while stopped.
    pub generation: u64,
    /// Its host pid.
    pub pid: i32,
    /// Why.
    pub cause: ExitCause,
    /// Exit code, when it exited.
    pub code: Option<i32>,
    /// Signal, when one killed it.
    pub signal: Option<i32>,
    /// Milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// Why an init ended, as far as the shim knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// By itself, or by somebody else's signal.
    Own,
    /// A `stop` was asked for.
    Stopped,
    /// A `kill` was asked for.
    Killed,
    /// `expire_time` was reached. The shim is gone too.
    Deadline,
    /// The shim was told to end, by `terminate` or by SIGTERM.
    Terminated,
}
