//! Why a call to a driver failed: who has to act, and whether it may have happened all the same.

use std::time::Duration;

/// One thing that is wrong with a request or a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path: `limits.memory_bytes`, `driver_config.volumes[0].name`. Empty: the whole.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// The failure of one call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    pub kind: CallErrorKind,
    /// One sentence, naming the driver and the operation.
    pub message: String,
    /// What to do about it; empty when nothing is known.
    pub fix: String,
    /// Of `Invalid`.
    pub violations: Vec<Violation>,
    /// The call, or an attempt before the last one, may have taken effect.
    pub(super) ambiguous: bool,
}

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallErrorKind {
    /// The request can never work as it is.
    Invalid,
    /// No such sandbox, image …
    NotFound,
    /// Same id, other spec.
    AlreadyExists,
    /// The platform refused the credentials or the operation.
    Denied,
    /// The platform is not able to now, and will not be by waiting.
    Precondition,
    /// No quota, memory, disk, address …; may work later.
    Exhausted { retry: Option<Duration> },
    /// The platform did not answer, or is busy with this sandbox; may work later.
    Unavailable,
    /// The deadline passed.
    Timeout,
    /// Not among the driver's capabilities.
    Unimplemented,
    /// A fault in the driver.
    Internal,
    /// There is no connection to the driver.
    Unreachable,
}

impl CallErrorKind {
    /// A stable name for logs and details.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::Denied => "DENIED",
            Self::Precondition => "PRECONDITION",
            Self::Exhausted { .. } => "EXHAUSTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Timeout => "TIMEOUT",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unreachable => "UNREACHABLE",
        }
    }
}

impl CallError {
    /// The call may have taken effect: observe before deciding anything.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// The same call may succeed later without anyone doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            CallErrorKind::Unavailable
                | CallErrorKind::Timeout
                | CallErrorKind::Unreachable
                | CallErrorKind::Exhausted { .. }
        )
    }
}
