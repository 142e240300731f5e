//! The facts about an execution that must survive the gateway.

use std::collections::BTreeMap;

use super::{DriverName, ExecutionId, SandboxId, UnixMillis};

/// Everything about an execution that is stored. Its runner owns and changes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutionFacts {
    pub id: ExecutionId,
    pub sandbox_id: SandboxId,
    pub driver: DriverName,
    pub one_shot: bool,
    pub detachable: bool,
    pub owner_uid: u32,
    pub argv: Vec<Vec<u8>>,
    pub cwd: String,
    pub user: Option<(u32, Option<u32>)>,
    pub pty: Option<PtySize>,
    pub stdin: bool,
    pub timeout_ms: u64,
    pub output_cap_bytes: u64,
    pub labels: BTreeMap<String, String>,
    /// Names only: values are never stored.
    pub environment_names: Vec<String>,
    pub state: ExecutionState,
    pub ending: Option<Ending>,
    pub create_time: UnixMillis,
    pub start_time: UnixMillis,
    pub end_time: UnixMillis,
    pub stages: StageTimes,
    pub output: OutputTotals,
    pub cpu_user_us: Option<u64>,
    pub cpu_system_us: Option<u64>,
    pub max_rss_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtySize {
    pub rows: u32,
    pub columns: u32,
    pub term: String,
}

/// `Queued → Claiming → Running → Succeeded | Failed | Canceled | TimedOut | Lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExecutionState {
    Queued,
    Claiming,
    Running,
    Succeeded,
    Failed,
    Canceled,
    TimedOut,
    Lost,
}

impl ExecutionState {
    /// Nothing changes any more.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Claiming | Self::Running)
    }

    /// The stable name that callers see and the store keeps.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Claiming => "CLAIMING",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
            Self::TimedOut => "TIMED_OUT",
            Self::Lost => "LOST",
        }
    }
}

/// How and why an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub reason: ExecutionReason,
    /// One sentence for people.
    pub message: String,
    pub exit_code: Option<i32>,
    pub signal: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExecutionReason {
    Exited,
    Signaled,
    OomKilled,
    Timeout,
    CanceledByCaller,
    CallerLeft,
    SandboxDeleted,
    SandboxExpired,
    SandboxStopped,
    SandboxFailed,
    ProgramNotFound,
    ProgramNotExecutable,
    StartFailed,
    SupervisorLost,
    GatewayFault,
    OutputNotStored,
    StdinLost,
}

impl ExecutionReason {
    /// The stable name that the store keeps.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited => "EXITED",
            Self::Signaled => "SIGNALED",
            Self::OomKilled => "OOM_KILLED",
            Self::Timeout => "TIMEOUT",
            Self::CanceledByCaller => "CANCELED_BY_CALLER",
            Self::CallerLeft => "CALLER_LEFT",
            Self::SandboxDeleted => "SANDBOX_DELETED",
            Self::SandboxExpired => "SANDBOX_EXPIRED",
            Self::SandboxStopped => "SANDBOX_STOPPED",
            Self::SandboxFailed => "SANDBOX_FAILED",
            Self::ProgramNotFound => "PROGRAM_NOT_FOUND",
            Self::ProgramNotExecutable => "PROGRAM_NOT_EXECUTABLE",
            Self::StartFailed => "START_FAILED",
            Self::SupervisorLost => "SUPERVISOR_LOST",
            Self::GatewayFault => "GATEWAY_FAULT",
            Self::OutputNotStored => "OUTPUT_NOT_STORED",
            Self::StdinLost => "STDIN_LOST",
        }
    }
}

/// Time spent in each stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    pub queued_us: u64,
    pub claiming_us: u64,
    pub running_us: u64,
}

/// Length of the whole output, and how much of it the record dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputTotals {
    pub bytes: u64,
    pub dropped_bytes: u64,
}
