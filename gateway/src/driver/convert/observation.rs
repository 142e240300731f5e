//! Observations and handles.

use cofferdam_proto::compute::v1 as wire;

use super::{ConvertError, enums, plain};
use crate::model::{
    Condition, ConditionStatus, ConditionType, Handle, Observation, ObservedState, SandboxId,
    Termination, TerminationReason, UnixMillis,
};

enums!(state_to_wire, state_from_wire, ObservedState, wire::SandboxState:
    Unknown = Unspecified,
    Creating = Creating,
    Running = Running,
    Stopped = Stopped,
    Failed = FailedState,
    Deleting = Deleting,
    Paused = Paused,
);

enums!(type_to_wire, type_from_wire, ConditionType, wire::ConditionType:
    Unknown = Unspecified,
    Scheduled = Scheduled,
    ImageReady = ImageReady,
    NetworkReady = NetworkReady,
    StorageReady = StorageReady,
    SupervisorStarted = SupervisorStarted,
    Disrupted = Disrupted,
);

enums!(status_to_wire, status_from_wire, ConditionStatus, wire::ConditionStatus:
    Unknown = Unspecified,
    True = True,
    False = False,
    InProgress = InProgress,
);

enums!(reason_to_wire, reason_from_wire, TerminationReason, wire::TerminationReason:
    Unknown = Unspecified,
    Exited = Exited,
    Signaled = Signaled,
    OomKilled = OomKilled,
    Deadline = Deadline,
    StoppedByRequest = StoppedByRequest,
    Evicted = Evicted,
    PlatformLost = PlatformLost,
    ImageNotFound = ImageNotFound,
    ImageAccessDenied = ImageAccessDenied,
    ImagePullFailed = ImagePullFailed,
    ImageWrongPlatform = ImageWrongPlatform,
    NoSpace = NoSpace,
    Unschedulable = Unschedulable,
    SupervisorStartFailed = SupervisorStartFailed,
    KernelPanic = KernelPanic,
    Rejected = Rejected,
    PlatformError = PlatformError,
);

pub fn observation_to_wire(observation: &Observation) -> wire::Sandbox {
    wire::Sandbox {
        sandbox_id: observation.sandbox_id.as_str().to_owned(),
        state: state_to_wire(observation.state),
        revision: observation.revision,
        conditions: observation
            .conditions
            .iter()
            .map(condition_to_wire)
            .collect(),
        termination: observation.termination.as_ref().map(termination_to_wire),
        oom_kill_count: observation.oom_kill_count,
        boots: observation.boots,
        create_time_unix_ms: observation.create_time.0,
        start_time_unix_ms: observation.start_time.0,
        platform_id: observation.platform_id.clone(),
        image_digest: observation.image_digest.clone(),
        stream: observation.stream.clone(),
        weaknesses: observation.weaknesses.clone(),
    }
}

pub fn observation_from_wire(sandbox: wire::Sandbox) -> Result<Observation, ConvertError> {
    Ok(Observation {
        sandbox_id: sandbox_id(&sandbox.sandbox_id)?,
        state: state_from_wire(sandbox.state),
        revision: sandbox.revision,
        conditions: sandbox
            .conditions
            .into_iter()
            .map(condition_from_wire)
            .collect(),
        termination: sandbox.termination.map(termination_from_wire),
        oom_kill_count: sandbox.oom_kill_count,
        boots: sandbox.boots,
        create_time: UnixMillis(sandbox.create_time_unix_ms),
        start_time: UnixMillis(sandbox.start_time_unix_ms),
        platform_id: plain(sandbox.platform_id),
        image_digest: plain(sandbox.image_digest),
        stream: plain(sandbox.stream),
        weaknesses: sandbox.weaknesses.into_iter().map(plain).collect(),
    })
}

pub(in crate::driver) fn sandbox_id(id: &str) -> Result<SandboxId, ConvertError> {
    SandboxId::parse(id).map_err(|error| ConvertError {
        what: "sandbox_id",
        problem: error.to_string(),
    })
}

fn condition_to_wire(condition: &Condition) -> wire::Condition {
    wire::Condition {
        r#type: type_to_wire(condition.kind),
        status: status_to_wire(condition.status),
        message: condition.message.clone(),
        change_time_unix_ms: condition.change_time.0,
        progress_done_bytes: condition.progress_done_bytes,
        progress_total_bytes: condition.progress_total_bytes,
    }
}

fn condition_from_wire(condition: wire::Condition) -> Condition {
    Condition {
        kind: type_from_wire(condition.r#type),
        status: status_from_wire(condition.status),
        message: plain(condition.message),
        change_time: UnixMillis(condition.change_time_unix_ms),
        progress_done_bytes: condition.progress_done_bytes,
        progress_total_bytes: condition.progress_total_bytes,
    }
}

fn termination_to_wire(termination: &Termination) -> wire::Termination {
    wire::Termination {
        reason: reason_to_wire(termination.reason),
        exit_code: termination.exit_code,
        signal: termination.signal,
        message: termination.message.clone(),
        time_unix_ms: termination.time.0,
    }
}

fn termination_from_wire(termination: wire::Termination) -> Termination {
    Termination {
        reason: reason_from_wire(termination.reason),
        exit_code: termination.exit_code,
        signal: termination.signal,
        message: plain(termination.message),
        time: UnixMillis(termination.time_unix_ms),
    }
}

pub fn handle_to_wire(handle: &Handle) -> wire::Handle {
    wire::Handle {
        version: handle.version,
        data: handle.data.clone().into(),
    }
}

pub fn handle_from_wire(handle: wire::Handle) -> Handle {
    Handle {
        version: handle.version,
        data: handle.data.into(),
    }
}
