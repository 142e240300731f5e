//! The live domain types that the gateway's parts share.
//!
//! They are neither what travels on a wire (generated types stop at each server's or client's
//! `convert.rs`) nor what is stored (`store/records.rs`): none of them is serializable.

mod execution;
mod ids;
mod observation;
mod sandbox;
mod spec;

pub use execution::{
    Ending, ExecutionFacts, ExecutionReason, ExecutionState, OutputTotals, PtySize, StageTimes,
};
pub use ids::{DriverName, ExecutionId, IdError, OperationId, SandboxId, SandboxName, Token};
pub use observation::{
    Condition, ConditionStatus, ConditionType, Handle, Observation, ObservedState, Termination,
    TerminationReason,
};
pub use sandbox::{SandboxFacts, SandboxState};
pub use spec::{
    Credentials, Environment, ImageSource, ImageSpec, Isolation, LimitSet, Mount, MountSource,
    NetworkClass, NetworkSpec, PullPolicy, ResourceLimits, SandboxSpec,
};

/// Wall-clock time, milliseconds since the Unix epoch, as it is stored and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The current wall-clock time.
    pub fn now() -> Self {
        let elapsed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    /// This instant moved by `duration`; stays at the end of time.
    pub fn after(self, duration: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long until this instant from now; zero once it has passed.
    pub fn remaining(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(Self::now().0))
    }
}
