//! What a driver says it sees on its platform.

use super::{SandboxId, UnixMillis};

/// A driver's view of one sandbox at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub sandbox_id: SandboxId,
    pub state: ObservedState,
    /// Grows with every change, within one incarnation of the driver.
    pub revision: u64,
    pub conditions: Vec<Condition>,
    pub termination: Option<Termination>,
    pub oom_kill_count: Option<u64>,
    pub boots: u64,
    pub create_time: UnixMillis,
    pub start_time: UnixMillis,
    pub platform_id: String,
    pub image_digest: String,
    pub stream: String,
    pub weaknesses: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObservedState {
    /// The driver said something that this gateway does not know.
    Unknown,
    Creating,
    Running,
    Stopped,
    Failed,
    Deleting,
    Paused,
}

impl ObservedState {
    /// As in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Creating => "CREATING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
            Self::Deleting => "DELETING",
            Self::Paused => "PAUSED",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub kind: ConditionType,
    pub status: ConditionStatus,
    pub message: String,
    pub change_time: UnixMillis,
    pub progress_done_bytes: u64,
    pub progress_total_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionType {
    Unknown,
    Scheduled,
    ImageReady,
    NetworkReady,
    StorageReady,
    SupervisorStarted,
    Disrupted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    Unknown,
    True,
    False,
    InProgress,
}

/// Why a sandbox does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    pub reason: TerminationReason,
    pub exit_code: i32,
    pub signal: u32,
    pub message: String,
    pub time: UnixMillis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TerminationReason {
    Unknown,
    Exited,
    Signaled,
    OomKilled,
    Deadline,
    StoppedByRequest,
    Evicted,
    PlatformLost,
    ImageNotFound,
    ImageAccessDenied,
    ImagePullFailed,
    ImageWrongPlatform,
    NoSpace,
    Unschedulable,
    SupervisorStartFailed,
    KernelPanic,
    Rejected,
    PlatformError,
}

impl TerminationReason {
    /// The stable name that callers see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Exited => "EXITED",
            Self::Signaled => "SIGNALED",
            Self::OomKilled => "OOM_KILLED",
            Self::Deadline => "DEADLINE",
            Self::StoppedByRequest => "STOPPED_BY_REQUEST",
            Self::Evicted => "EVICTED",
            Self::PlatformLost => "PLATFORM_LOST",
            Self::ImageNotFound => "IMAGE_NOT_FOUND",
            Self::ImageAccessDenied => "IMAGE_ACCESS_DENIED",
            Self::ImagePullFailed => "IMAGE_PULL_FAILED",
            Self::ImageWrongPlatform => "IMAGE_WRONG_PLATFORM",
            Self::NoSpace => "NO_SPACE",
            Self::Unschedulable => "UNSCHEDULABLE",
            Self::SupervisorStartFailed => "SUPERVISOR_START_FAILED",
            Self::KernelPanic => "KERNEL_PANIC",
            Self::Rejected => "REJECTED",
            Self::PlatformError => "PLATFORM_ERROR",
        }
    }
}

/// What a driver wants back after a restart. The gateway never looks inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    pub version: u32,
    pub data: Vec<u8>,
}
