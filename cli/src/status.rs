//! The only place where a gRPC status becomes an error for people.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error::{CommandError, Kind, Violation};

/// The domain of the gateway's own `ErrorInfo`.
const DOMAIN: &str = "cofferdam";

/// A driver lacks something; the message begins with it in small letters, for those who get no
/// details.
const CAPABILITY_MISMATCH: &str = "CAPABILITY_MISMATCH";
const CAPABILITY_PREFIX: &str = "capability_mismatch: ";

/// True if the gateway itself said this, and not the connection's end.
pub(crate) fn is_from_gateway(status: &Status) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.domain == DOMAIN)
}

impl From<Status> for CommandError {
    fn from(status: Status) -> Self {
        if status.code() == Code::Unavailable && !is_from_gateway(&status) {
            return Self::new(Kind::Unavailable, "the gateway does not answer")
                .hint("`cofferdam doctor` shows what is wrong")
                .caused_by(Cause(status));
        }
        let mut error = Self::new(kind(status.code()), sentence(&status));
        if let Some(info) = status.get_details_error_info() {
            error.hint = info
                .metadata
                .get("hint")
                .cloned()
                .filter(|hint| !hint.is_empty());
            error.request_id = ["request_id", "request"]
                .iter()
                .find_map(|key| info.metadata.get(*key).cloned());
            if info.reason == CAPABILITY_MISMATCH {
                error.kind = Kind::Unsupported;
                error.message = error.message.replacen(CAPABILITY_PREFIX, "", 1);
            }
            error.reason = Some(info.reason).filter(|reason| !reason.is_empty());
        }
        if let Some(request) = status.get_details_bad_request() {
            error.violations = request
                .field_violations
                .into_iter()
                .map(|violation| Violation {
                    flag: flag(&violation.field),
                    field: violation.field,
                    message: violation.description,
                })
                .collect();
        }
        error.retry_after_ms = status
            .get_details_retry_info()
            .and_then(|retry| retry.retry_delay)
            .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        error
    }
}

/// A status as the cause of another error, in words.
#[derive(Debug)]
pub(crate) struct Cause(pub(crate) Status);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sentence(&self.0))
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

fn kind(code: Code) -> Kind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::AlreadyExists,
        Code::FailedPrecondition | Code::Aborted => Kind::Precondition,
        Code::ResourceExhausted => Kind::LimitReached,
        Code::Unavailable | Code::Cancelled => Kind::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => Kind::PermissionDenied,
        Code::DataLoss => Kind::DataLoss,
        Code::DeadlineExceeded => Kind::Deadline,
        Code::Unimplemented => Kind::Unsupported,
        Code::Ok | Code::Unknown | Code::Internal => Kind::Internal,
    }
}

fn sentence(status: &Status) -> String {
    if !status.message().is_empty() {
        return status.message().to_owned();
    }
    match status.code() {
        Code::Unimplemented => "this gateway does not know the request".to_owned(),
        code => code.description().to_owned(),
    }
}

/// Fields that hold names of the caller's own choice.
const HOLDERS: [&str; 4] = ["driver_config", "labels", "environment", "mounts"];

/// The flag behind a field of the contract. Drivers name fields of their own `SandboxSpec`, the
/// gateway those of its requests; both end in the same names, so the last known one decides.
fn flag(field: &str) -> Option<&'static str> {
    let ends = ['.', '[', ']'];
    field
        .split(ends)
        .find(|part| HOLDERS.contains(part))
        .and_then(flag_of_name)
        .or_else(|| field.rsplit(ends).find_map(flag_of_name))
}

fn flag_of_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "driver" => "--driver",
        "name" => "--name",
        "image" | "reference" | "archive" => "--image",
        "pull" => "--pull",
        "user" | "uid" | "gid" => "--user",
        "memory_bytes" => "--memory",
        "cpu_millis" => "--cpus",
        "pids" => "--pids",
        "disk_bytes" => "--disk",
        "tmp_bytes" => "--tmp",
        "network" => "--network",
        "egress_allow" | "allow" => "--allow",
        "mounts" => "--mount",
        "labels" => "--label",
        "lifetime_ms" | "expire_time_unix_ms" => "--lifetime",
        "idle_timeout_ms" => "--idle-timeout",
        "gpus" => "--gpus",
        "driver_config" => "--driver-config",
        "isolation_min" => "--isolation",
        "root_writable" => "--root-writable",
        "workspace" => "--workspace",
        "environment" => "--env",
        "argv" => "CMD",
        "cwd" => "--workdir",
        "timeout_ms" => "--timeout",
        "output_cap_bytes" => "--output-cap",
        "pty" => "--tty",
        "stdin" => "--interactive",
        "grace_ms" => "--grace",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::flag;

    #[test]
    fn fields_are_shown_as_the_flags_that_set_them() {
        assert_eq!(flag("sandbox.memory_bytes"), Some("--memory"));
        assert_eq!(flag("limits.cpu_millis"), Some("--cpus"));
        assert_eq!(flag("one_shot.mounts[2].host_path"), Some("--mount"));
        assert_eq!(flag("execution.argv[0]"), Some("CMD"));
        assert_eq!(flag("network.allow[1]"), Some("--allow"));
        assert_eq!(flag("snapshot_id"), None);
    }

    #[test]
    fn a_name_inside_of_driver_config_is_not_taken_for_a_flag_of_its_own() {
        assert_eq!(
            flag("driver_config.volumes[0].size"),
            Some("--driver-config")
        );
        assert_eq!(flag("driver_config.name"), Some("--driver-config"));
        assert_eq!(flag("labels.user"), Some("--label"));
        assert_eq!(flag("environment.image"), Some("--env"));
    }
}
