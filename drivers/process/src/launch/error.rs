//! Why a sandbox could not be launched.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::cgroup::CgroupError;
use crate::ids::IdError;
use crate::sandbox::report::{Failure, Stage};

/// Why a sandbox could not be launched. Whatever had been made is gone again, unless `leftovers`
/// were logged.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The plan makes no sense on any machine.
    #[error("invalid plan: {problem}")]
    Plan {
        /// What is wrong.
        problem: String,
    },
    /// A sandbox of this id has a state directory already.
    #[error("sandbox {sandbox_id} exists already")]
    Exists {
        /// Its id.
        sandbox_id: String,
    },
    /// The state directory cannot be made.
    #[error("cannot prepare the state directory {}", path.display())]
    State {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No id block.
    #[error("cannot claim host ids for the sandbox")]
    Ids(#[source] IdError),
    /// No cgroup.
    #[error("cannot make the sandbox's cgroup")]
    Cgroup(#[source] CgroupError),
    /// No copy of the supervisor for a workload that is root.
    #[error("cannot copy the supervisor for a sandbox whose user is root")]
    Supervisor {
        /// Why.
        source: io::Error,
    },
    /// The shim program did not start.
    #[error("cannot start the shim {}", path.display())]
    Spawn {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The shim failed, and said where.
    #[error("cannot {}", failure.stage)]
    Shim {
        /// Stage, errno and object.
        #[source]
        failure: Failure,
        /// What an operator can do about it.
        hint: Option<String>,
    },
    /// The shim ended without a word.
    #[error("the shim ended without an answer ({detail})")]
    NoAnswer {
        /// Its exit status, or what was wrong with its answer.
        detail: String,
    },
    /// The shim did not answer in time.
    #[error("the shim did not answer within {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
}

impl LaunchError {
    /// The shim's stage, when the shim failed.
    pub fn stage(&self) -> Option<Stage> {
        match self {
            LaunchError::Shim { failure, .. } => Some(failure.stage),
            _ => None,
        }
    }

    /// The kernel's answer, where it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            LaunchError::Shim { failure, .. } => Some(failure.errno).filter(|&errno| errno != 0),
            LaunchError::State { source, .. }
            | LaunchError::Spawn { source, .. }
            | LaunchError::Supervisor { source } => source.raw_os_error(),
            LaunchError::Cgroup(error) => error.source.raw_os_error(),
            _ => None,
        }
    }

    /// What an operator can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            LaunchError::Shim { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
