//! gRPC statuses of drivers as call errors: the one mapping.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::convert::plain;
use super::{CallError, CallErrorKind, Violation};

/// What a driver's word means to the gateway.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) kind: CallErrorKind,
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) fix: String,
    pub(super) violations: Vec<Violation>,
    /// When the driver wants to be asked again.
    pub(super) retry: Option<Duration>,
    /// Types of the violated preconditions: `CONTRACT_VERSION`.
    pub(super) preconditions: Vec<String>,
}

impl Answer {
    pub(super) fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        let violations = details.bad_request().map_or_else(Vec::new, |bad_request| {
            let violations = bad_request.field_violations.iter();
            violations
                .map(|v| Violation {
                    field: plain(v.field.clone()),
                    message: plain(v.description.clone()),
                })
                .collect()
        });
        let preconditions = details
            .precondition_failure()
            .map_or_else(Vec::new, |failure| {
                failure
                    .violations
                    .iter()
                    .map(|v| v.r#type.clone())
                    .collect()
            });
        let links = details
            .help()
            .map(|help| help.links.as_slice())
            .unwrap_or_default();
        let fixes: Vec<&str> = links.iter().map(|link| link.description.as_str()).collect();
        Self {
            kind: kind(status.code(), retry),
            code: status.code(),
            message: plain(status.message().to_owned()),
            fix: plain(fixes.join("; ")),
            violations,
            retry,
            preconditions,
        }
    }

    /// The error of `operation` on the driver `name`.
    pub(super) fn into_error(self, name: &str, operation: &str) -> CallError {
        let said = match self.message.as_str() {
            "" => format!("answered {:?} without a message", self.code),
            message => message.to_owned(),
        };
        CallError {
            kind: self.kind,
            message: format!("driver {name}: {operation}: {said}"),
            fix: self.fix,
            violations: self.violations,
            ambiguous: is_ambiguous(self.code),
        }
    }
}

fn kind(code: Code, retry: Option<Duration>) -> CallErrorKind {
    match code {
        Code::InvalidArgument => CallErrorKind::Invalid,
        Code::NotFound => CallErrorKind::NotFound,
        Code::AlreadyExists => CallErrorKind::AlreadyExists,
        Code::PermissionDenied | Code::Unauthenticated => CallErrorKind::Denied,
        Code::FailedPrecondition => CallErrorKind::Precondition,
        Code::ResourceExhausted => CallErrorKind::Exhausted { retry },
        Code::Aborted | Code::Unavailable => CallErrorKind::Unavailable,
        Code::DeadlineExceeded => CallErrorKind::Timeout,
        Code::Unimplemented => CallErrorKind::Unimplemented,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => CallErrorKind::Internal,
    }
}

/// Codes after which nobody knows what happened. By the contract all others leave nothing behind.
fn is_ambiguous(code: Code) -> bool {
    matches!(
        code,
        Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::DataLoss
            | Code::Unavailable
            // Of a call: its answer was too large to be read.
            | Code::OutOfRange
    )
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    #[test]
    fn details_reach_the_caller() {
        let mut details = ErrorDetails::new();
        details
            .set_retry_info(Some(Duration::from_millis(250)))
            .set_bad_request(vec![FieldViolation::new("limits.pids", "too many")])
            .add_precondition_failure_violation("CONTRACT_VERSION", "contract", "old")
            .add_help_link("install driver 2.0", "");
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let answer = Answer::of(&status);
        assert_eq!(answer.retry, Some(Duration::from_millis(250)));
        assert_eq!(answer.preconditions, ["CONTRACT_VERSION"]);
        let error = answer.into_error("acme", "create sbx-1");
        assert_eq!(error.kind, CallErrorKind::Invalid);
        assert_eq!(error.to_string(), "driver acme: create sbx-1: no");
        assert_eq!(error.fix, "install driver 2.0");
        assert_eq!(error.violations[0].field, "limits.pids");
        assert!(!error.is_ambiguous());
    }

    #[test]
    fn what_may_have_happened_is_ambiguous() {
        for (code, ambiguous) in [
            (Code::Unknown, true),
            (Code::Internal, true),
            (Code::DeadlineExceeded, true),
            (Code::Cancelled, true),
            (Code::Unavailable, true),
            (Code::OutOfRange, true),
            (Code::ResourceExhausted, false),
            (Code::FailedPrecondition, false),
            (Code::Aborted, false),
            (Code::NotFound, false),
        ] {
            let error = Answer::of(&Status::new(code, "")).into_error("d", "create");
            assert_eq!(error.is_ambiguous(), ambiguous, "{code:?}");
        }
    }

    #[test]
    fn statuses_without_readable_details_are_fine() {
        let status = Status::with_details(Code::Internal, "x", vec![0xff; 9].into());
        assert_eq!(Answer::of(&status).kind, CallErrorKind::Internal);
    }
}
