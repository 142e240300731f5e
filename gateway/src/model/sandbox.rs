//! The facts about a sandbox that must survive the gateway.

use super::{
    DriverName, ExecutionId, Handle, Observation, SandboxId, SandboxName, SandboxSpec, UnixMillis,
};

/// Everything about a sandbox that is stored. One task owns and changes it.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxFacts {
    pub id: SandboxId,
    pub name: Option<SandboxName>,
    pub driver: DriverName,
    pub owner_uid: u32,
    /// The execution whose one-shot sandbox this is.
    pub execution_id: Option<ExecutionId>,
    pub spec: SandboxSpec,
    pub state: SandboxState,
    /// Stable name of why it failed or stopped; empty otherwise.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    pub handle: Option<Handle>,
    /// The driver's last word.
    pub observed: Option<Observation>,
    pub create_time: UnixMillis,
    /// Zero until it was ready for the first time.
    pub ready_time: UnixMillis,
    pub state_time: UnixMillis,
    /// 0: never.
    pub idle_timeout_ms: u64,
    /// What of the safe defaults was given up, each a sentence.
    pub weaknesses: Vec<String>,
    /// Names of the environment variables that were bound; their values are never stored.
    pub environment_names: Vec<String>,
}

/// Where a sandbox is in its life.
///
/// ```text
/// Queued → Provisioning → Ready ⇄ Stopped      (over Stopping and Provisioning)
///               └──────────┴── Failed ──┐
///  every state ───────────────────────► Deleting → Deleted
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SandboxState {
    Queued,
    Provisioning,
    Ready,
    Stopping,
    Stopped,
    Failed,
    Deleting,
    Deleted,
}

impl SandboxState {
    /// The stable name that callers see and the store keeps.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Provisioning => "PROVISIONING",
            Self::Ready => "READY",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
            Self::Deleting => "DELETING",
            Self::Deleted => "DELETED",
        }
    }
}
