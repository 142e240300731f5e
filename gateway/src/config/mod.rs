//! The gateway's configuration: read from flags, environment and files, checked as a whole, then
//! immutable.
//!
//! ```text
//! flags ─┐
//! env  ──┼─► wire (strict, every value knows where it came from) ─► resolve ─► Config
//! files ─┘                                        all problems at once ─┘
//! ```
//!
//! Nothing is bound, created or connected here; paths are looked at, not made.

mod drivers;
mod effective;
mod flags;
mod limits;
mod paths;
mod problem;
mod resolve;
mod scalar;
mod settled;
mod sources;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

pub use crate::driver::{DriverSource, DriverSpec};
use crate::model::DriverName;
use crate::store::Durability;
pub use effective::Effective;
pub use flags::Flags;
pub use paths::Host;
pub use problem::{ConfigError, Origin, Problem};
pub use resolve::{Resolved, from_flags_alone, load};

/// What the gateway runs with. Every default is explained where it is made, in `resolve.rs`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Records and output; survives restarts.
    pub state_dir: PathBuf,
    /// Sockets; may vanish with a reboot.
    pub runtime_dir: PathBuf,
    pub socket: SocketConfig,
    /// The supervisor's binary, which the drivers bring into the sandboxes.
    pub supervisor: PathBuf,
    pub drivers: Vec<DriverSpec>,
    pub default_driver: DriverName,
    /// What a sandbox gets when the caller says nothing.
    pub defaults: SandboxDefaults,
    /// What a caller may ask for at most.
    pub maximum: SandboxMaximum,
    pub executions: ExecutionLimits,
    /// From a sandbox's acceptance until the driver sees it running.
    pub create_timeout: Duration,
    /// From then until its supervisor's session is up.
    pub session_timeout: Duration,
    /// How long a shutdown waits for attached callers.
    pub drain_timeout: Duration,
    /// How long a driver may take to answer a call.
    pub driver_timeout: Duration,
    /// A watch without a word for so long is taken up anew.
    pub driver_silence: Duration,
    pub log: LogConfig,
    /// What the records have to survive. Not a key: a gateway inside another program has its own.
    pub durability: Durability,
}

/// Where callers reach the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    pub path: PathBuf,
    pub mode: u32,
    /// Name or number of the group that gets the socket.
    pub group: Option<String>,
}

/// Filled in where a caller says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxDefaults {
    pub memory_bytes: u64,
    pub cpu_millis: u64,
    pub pids: u64,
    pub disk_bytes: u64,
    pub tmp_bytes: u64,
    pub lifetime: Duration,
    pub uid: u32,
    pub gid: u32,
}

/// The most that a caller may ask for. `None`: as much as the platform gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SandboxMaximum {
    pub memory_bytes: Option<u64>,
    pub cpu_millis: Option<u64>,
    pub pids: Option<u64>,
    pub disk_bytes: Option<u64>,
    pub tmp_bytes: Option<u64>,
    pub lifetime: Option<Duration>,
    /// Sandboxes that exist at the same time, on all drivers together.
    pub sandboxes: Option<u64>,
}

/// Bounds of executions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutionLimits {
    pub timeout_default: Duration,
    pub timeout_max: Duration,
    /// Between SIGTERM and SIGKILL.
    pub cancel_grace: Duration,
    pub output_cap_default_bytes: u64,
    pub output_cap_max_bytes: u64,
    /// Executions at work at the same time.
    pub running_max: usize,
    /// Executions that wait for their turn; one more is refused.
    pub queue_max: usize,
    /// How long the record and output of a finished one are kept.
    pub retention: Duration,
}

/// What the gateway writes to stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    /// As `tracing_subscriber::EnvFilter` reads it: "info", "cofferdam_gateway=debug,info".
    pub filter: String,
}

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
