//! The stored names of enumerations. They never change; new ones are added.

/// A module for `#[serde(with = …)]` that stores an enumeration by name.
macro_rules! names {
    ($module:ident, $type:ident { $($variant:ident => $name:literal,)+ }) => {
        pub(in crate::store) mod $module {
            use serde::de::Error as _;
            use serde::{Deserialize, Deserializer, Serializer};

            use crate::model::$type;

            pub(in crate::store) fn name(value: &$type) -> &'static str {
                match value {
                    $($type::$variant => $name,)+
                }
            }

            pub(in crate::store) fn serialize<S: Serializer>(
                value: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(name(value))
            }

            pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
                match &*name {
                    $($name => Ok($type::$variant),)+
                    other => Err(D::Error::unknown_variant(other, &[$($name),+])),
                }
            }
        }
    };
}

names!(sandbox_state, SandboxState {
    Queued => "QUEUED",
    Provisioning => "PROVISIONING",
    Ready => "READY",
    Stopping => "STOPPING",
    Stopped => "STOPPED",
    Failed => "FAILED",
    Deleting => "DELETING",
    Deleted => "DELETED",
});

names!(execution_state, ExecutionState {
    Queued => "QUEUED",
    Claiming => "CLAIMING",
    Running => "RUNNING",
    Succeeded => "SUCCEEDED",
    Failed => "FAILED",
    Canceled => "CANCELED",
    TimedOut => "TIMED_OUT",
    Lost => "LOST",
});

names!(execution_reason, ExecutionReason {
    Exited => "EXITED",
    Signaled => "SIGNALED",
    OomKilled => "OOM_KILLED",
    Timeout => "TIMEOUT",
    CanceledByCaller => "CANCELED_BY_CALLER",
    CallerLeft => "CALLER_LEFT",
    SandboxDeleted => "SANDBOX_DELETED",
    SandboxExpired => "SANDBOX_EXPIRED",
    SandboxStopped => "SANDBOX_STOPPED",
    SandboxFailed => "SANDBOX_FAILED",
    ProgramNotFound => "PROGRAM_NOT_FOUND",
    ProgramNotExecutable => "PROGRAM_NOT_EXECUTABLE",
    StartFailed => "START_FAILED",
    SupervisorLost => "SUPERVISOR_LOST",
    GatewayFault => "GATEWAY_FAULT",
    OutputNotStored => "OUTPUT_NOT_STORED",
    StdinLost => "STDIN_LOST",
});

names!(observed_state, ObservedState {
    Unknown => "UNKNOWN",
    Creating => "CREATING",
    Running => "RUNNING",
    Stopped => "STOPPED",
    Failed => "FAILED",
    Deleting => "DELETING",
    Paused => "PAUSED",
});

names!(condition_type, ConditionType {
    Unknown => "UNKNOWN",
    Scheduled => "SCHEDULED",
    ImageReady => "IMAGE_READY",
    NetworkReady => "NETWORK_READY",
    StorageReady => "STORAGE_READY",
    SupervisorStarted => "SUPERVISOR_STARTED",
    Disrupted => "DISRUPTED",
});

names!(condition_status, ConditionStatus {
    Unknown => "UNKNOWN",
    True => "TRUE",
    False => "FALSE",
    InProgress => "IN_PROGRESS",
});

names!(termination_reason, TerminationReason {
    Unknown => "UNKNOWN",
    Exited => "EXITED",
    Signaled => "SIGNALED",
    OomKilled => "OOM_KILLED",
    Deadline => "DEADLINE",
    StoppedByRequest => "STOPPED_BY_REQUEST",
    Evicted => "EVICTED",
    PlatformLost => "PLATFORM_LOST",
    ImageNotFound => "IMAGE_NOT_FOUND",
    ImageAccessDenied => "IMAGE_ACCESS_DENIED",
    ImagePullFailed => "IMAGE_PULL_FAILED",
    ImageWrongPlatform => "IMAGE_WRONG_PLATFORM",
    NoSpace => "NO_SPACE",
    Unschedulable => "UNSCHEDULABLE",
    SupervisorStartFailed => "SUPERVISOR_START_FAILED",
    KernelPanic => "KERNEL_PANIC",
    Rejected => "REJECTED",
    PlatformError => "PLATFORM_ERROR",
});

names!(pull_policy, PullPolicy {
    Missing => "MISSING",
    Always => "ALWAYS",
    Never => "NEVER",
});

names!(network_class, NetworkClass {
    None => "NONE",
    Egress => "EGRESS",
    Open => "OPEN",
});

names!(isolation, Isolation {
    NoIsolation => "NONE",
    Namespaces => "NAMESPACES",
    Container => "CONTAINER",
    UserspaceKernel => "USERSPACE_KERNEL",
    VirtualMachine => "VM",
    RemoteMachine => "REMOTE_MACHINE",
});
