//! What goes wrong with sandboxes, in the contract's words: the only place where it is decided.

use std::io;
use std::path::Path;
use std::time::Duration;

use cofferdam_driver_sdk::DriverError;

use crate::cgroup::NotEnforced;
use crate::ids::IdError;
use crate::launch::{ControlError, DestroyError, LaunchError};
use crate::sandbox::report::Stage;

/// How soon something that ran out on this host may be there again.
const EXHAUSTED_RETRY: Duration = Duration::from_secs(5);

/// A launch failed, and nothing is left of it.
pub(crate) fn launch(error: LaunchError) -> DriverError {
    let message = error.to_string();
    match &error {
        LaunchError::Plan { problem } => DriverError::invalid_field("spec", problem.clone()),
        LaunchError::Exists { .. } => DriverError::internal(
            "there is a state directory of this id that this driver has no record of",
        )
        .because(error),
        LaunchError::Ids(IdError::Exhausted { .. }) => {
            DriverError::exhausted("host ids", message, Some(EXHAUSTED_RETRY)).because(error)
        }
        LaunchError::Timeout { .. } => DriverError::unavailable(message).because(error),
        _ if is_exhausted(error.errno()) => {
            DriverError::exhausted("the host", message, Some(EXHAUSTED_RETRY)).because(error)
        }
        LaunchError::Shim { failure, .. } if failure.stage == Stage::OpenCallbackDir => {
            DriverError::invalid_field("callback_directory", failure.to_string())
        }
        LaunchError::Spawn { path, .. } => {
            let fix = format!("install the shim as {}, or set shim_path", path.display());
            DriverError::precondition("SHIM", "shim_path", message, fix).because(error)
        }
        LaunchError::Shim { failure, .. } => {
            let subject = failure.stage.to_string();
            let fix = error.hint().unwrap_or_default().to_owned();
            DriverError::precondition("LAUNCH", subject, message, fix).because(error)
        }
        LaunchError::State { path, .. } => {
            let fix = format!("make {} writable for the driver", path.display());
            DriverError::precondition("STATE_DIR", "state_dir", message, fix).because(error)
        }
        LaunchError::Ids(IdError::Claims { dir, .. }) => {
            let fix = format!("make {} writable for the driver", dir.display());
            DriverError::precondition("ID_CLAIMS", "id_claims_dir", message, fix).because(error)
        }
        LaunchError::Cgroup(_) => {
            let fix = "check that the driver may write below cgroup_parent";
            DriverError::precondition("CGROUP", "cgroup_parent", message, fix).because(error)
        }
        LaunchError::NoAnswer { .. } | LaunchError::Supervisor { .. } => {
            DriverError::internal(message).because(error)
        }
    }
}

fn is_exhausted(errno: Option<i32>) -> bool {
    const EXHAUSTED: [i32; 6] = [
        libc::EAGAIN,
        libc::ENOMEM,
        libc::ENOSPC,
        libc::EMFILE,
        libc::ENFILE,
        libc::EDQUOT,
    ];
    errno.is_some_and(|errno| EXHAUSTED.contains(&errno))
}

/// A shim did not do what it was asked.
pub(crate) fn control(error: ControlError) -> DriverError {
    match &error {
        ControlError::Refused(failure) if failure.stage == Stage::Control => {
            let message = format!("the sandbox cannot be started: {}", failure.detail);
            DriverError::precondition("SANDBOX_STATE", "sandbox", message, "delete it")
        }
        ControlError::Refused(failure) if is_exhausted(Some(failure.errno)) => {
            DriverError::exhausted("the host", error.to_string(), Some(EXHAUSTED_RETRY))
                .because(error)
        }
        ControlError::Refused(failure) => {
            let (subject, message) = (failure.stage.to_string(), failure.to_string());
            DriverError::precondition("LAUNCH", subject, message, "")
        }
        ControlError::Unreachable { .. }
        | ControlError::Lost { .. }
        | ControlError::Timeout { .. } => {
            DriverError::unavailable(error.to_string()).because(error)
        }
    }
}

/// Something is left of a sandbox; the next call goes on.
pub(crate) fn destroy(error: DestroyError) -> DriverError {
    DriverError::unavailable(error.to_string()).because(error)
}

/// A record cannot be read or written.
pub(crate) fn store(action: &str, path: &Path, error: io::Error) -> DriverError {
    let message = format!("cannot {action} {}", path.display());
    if is_exhausted(error.raw_os_error()) {
        return DriverError::exhausted("disk", message, Some(EXHAUSTED_RETRY)).because(error);
    }
    let fix = format!(
        "make {} writable for the driver, or set state_dir",
        path.display()
    );
    DriverError::precondition("STATE_DIR", "state_dir", message, fix).because(error)
}

/// A limit that the caller insists on does not hold here.
pub(crate) fn unenforceable(limit: &str, lacking: &NotEnforced) -> DriverError {
    DriverError::precondition(
        "LIMIT",
        format!("limits.{limit}"),
        format!(
            "a limit on {limit} cannot be enforced here: {}",
            lacking.why
        ),
        lacking.fix.clone(),
    )
}

#[cfg(test)]
mod tests {
    use cofferdam_driver_sdk::error::ErrorKind;

    use super::*;
    use crate::sandbox::report::Failure;

    #[test]
    fn a_failure_with_a_known_remedy_carries_it() {
        let error = launch(LaunchError::Shim {
            failure: Failure::os(Stage::CreateNamespaces, libc::EPERM, ""),
            hint: Some("set kernel.unprivileged_userns_clone=1 (sysctl)".to_owned()),
        });
        let ErrorKind::Precondition { fix, .. } = error.kind() else {
            panic!("{error:?}");
        };
        assert!(fix.contains("kernel.unprivileged_userns_clone=1"));
        assert!(error.chain().contains("not permitted"), "{}", error.chain());
    }

    #[test]
    fn what_runs_out_may_be_tried_again() {
        let error = launch(LaunchError::Shim {
            failure: Failure::os(Stage::CloneInit, libc::EAGAIN, ""),
            hint: None,
        });
        assert!(matches!(
            error.kind(),
            ErrorKind::Exhausted { retry: Some(_), .. }
        ));
    }
}
