//! What can go wrong in a driver, and how it looks on the wire.
//!
//! A [`DriverError`] says who has to act: the caller (invalid), the operator (precondition), nobody
//! but time (unavailable, exhausted, aborted), or the driver's author (internal). The mapping to
//! `tonic::Status` with `google.rpc` details exists once, here.

use std::error::Error as StdError;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::proto::FieldViolation;

/// How long a gateway waits before it repeats a call that was answered `ABORTED`.
pub const ABORTED_RETRY: Duration = Duration::from_millis(100);

/// Of an error's violations. The contract's bound for all details: 4 KiB before base64.
const VIOLATIONS_BYTES_MAX: usize = 3 << 10;

/// Each has so many bytes besides its texts.
const VIOLATION_FRAME_BYTES: usize = 8;

type Source = Box<dyn StdError + Send + Sync>;

/// The failure of one operation on a platform.
///
/// `Display` is one sentence without its causes; [`StdError::source`] has those, and the server
/// logs the chain.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Source>,
}

/// Who has to act, with what they need to know. One variant for each code of the contract.
#[derive(Debug, Clone, PartialEq)]
pub enum ErrorKind {
    /// `INVALID_ARGUMENT`: the request can never work as it is.
    Invalid(Vec<FieldViolation>),
    /// `NOT_FOUND`: no object of this type and name.
    NotFound {
        /// Such as `sandbox` or `image`.
        resource: &'static str,
        /// Its id or name.
        name: String,
    },
    /// `ALREADY_EXISTS`: the name is taken by something else.
    AlreadyExists {
        /// Such as `sandbox`.
        resource: &'static str,
        /// Its id or name.
        name: String,
    },
    /// `FAILED_PRECONDITION`: an operator has to mend something first.
    Precondition {
        /// Stable, upper case: `CONTRACT_VERSION`, `NOT_CONFIGURED`, `PLATFORM_UNHEALTHY`.
        violation: &'static str,
        /// What is not as it has to be: a path, a setting, a service.
        subject: String,
        /// The exact remedy: a command or a setting. Empty when there is none.
        fix: String,
    },
    /// `ABORTED`: another operation on this sandbox is pending.
    Aborted,
    /// `RESOURCE_EXHAUSTED`: the platform has no more of something.
    Exhausted {
        /// Of what: `memory`, `disk`, `host ids`.
        subject: String,
        /// When to try again, if that can help.
        retry: Option<Duration>,
    },
    /// `UNAVAILABLE`: the platform did not answer.
    Unavailable {
        /// When to try again.
        retry: Duration,
    },
    /// `PERMISSION_DENIED`: credentials were refused.
    PermissionDenied,
    /// `OUT_OF_RANGE`: a cursor that is too old.
    OutOfRange,
    /// `UNIMPLEMENTED`: not in this driver's capabilities.
    Unimplemented,
    /// `DEADLINE_EXCEEDED`: the call's deadline passed.
    DeadlineExceeded,
    /// `INTERNAL`: a fault in the driver.
    Internal,
}

impl DriverError {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The request can never work: all that is wrong with it. Asserts that there is something.
    #[must_use]
    pub fn invalid(violations: Vec<FieldViolation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is not valid".to_owned(),
            [one] => format!("{}: {}", one.field, one.message),
            [first, rest @ ..] => format!(
                "{}: {} (and {} more violations)",
                first.field,
                first.message,
                rest.len()
            ),
        };
        Self::new(ErrorKind::Invalid(violations), message)
    }

    /// The request can never work because of one field.
    #[must_use]
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldViolation {
            field: field.into(),
            message: message.into(),
        }])
    }

    /// There is no such sandbox.
    #[must_use]
    pub fn sandbox_not_found(sandbox_id: &str) -> Self {
        Self::not_found("sandbox", sandbox_id)
    }

    /// There is no object of this type and name.
    #[must_use]
    pub fn not_found(resource: &'static str, name: impl Into<String>) -> Self {
        let name = name.into();
        let message = format!("no {resource} {name:?} here");
        Self::new(ErrorKind::NotFound { resource, name }, message)
    }

    /// The sandbox id belongs to a sandbox that was made from another spec.
    #[must_use]
    pub fn sandbox_exists(sandbox_id: &str) -> Self {
        let message = format!("sandbox {sandbox_id:?} exists already, with another spec");
        let name = sandbox_id.to_owned();
        Self::new(
            ErrorKind::AlreadyExists {
                resource: "sandbox",
                name,
            },
            message,
        )
    }

    /// An operator has to do something before this can work. `fix` is the exact remedy.
    #[must_use]
    pub fn precondition(
        violation: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(
            ErrorKind::Precondition {
                violation,
                subject: subject.into(),
                fix: fix.into(),
            },
            message,
        )
    }

    /// Another operation on this sandbox is pending.
    #[must_use]
    pub fn aborted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Aborted, message)
    }

    /// The platform has no more of `subject`.
    #[must_use]
    pub fn exhausted(
        subject: impl Into<String>,
        message: impl Into<String>,
        retry: Option<Duration>,
    ) -> Self {
        Self::new(
            ErrorKind::Exhausted {
                subject: subject.into(),
                retry,
            },
            message,
        )
    }

    /// The platform did not answer; the same call may work in a second.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            ErrorKind::Unavailable {
                retry: Duration::from_secs(1),
            },
            message,
        )
    }

    /// Credentials were refused.
    #[must_use]
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::PermissionDenied, message)
    }

    /// A cursor that cannot be continued from.
    #[must_use]
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::OutOfRange, message)
    }

    /// This driver does not do that; `rpc` is the RPC's name.
    #[must_use]
    pub fn unimplemented(rpc: &str) -> Self {
        Self::new(
            ErrorKind::Unimplemented,
            format!("{rpc} is not among the capabilities of this driver"),
        )
    }

    /// The deadline of the call passed.
    #[must_use]
    pub fn deadline_exceeded(rpc: &str) -> Self {
        Self::new(
            ErrorKind::DeadlineExceeded,
            format!("the deadline of {rpc} passed; the operation was dropped"),
        )
    }

    /// A fault in the driver: something that its author did not expect.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The gRPC code of this error.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.kind {
            ErrorKind::Invalid(_) => Code::InvalidArgument,
            ErrorKind::NotFound { .. } => Code::NotFound,
            ErrorKind::AlreadyExists { .. } => Code::AlreadyExists,
            ErrorKind::Precondition { .. } => Code::FailedPrecondition,
            ErrorKind::Aborted => Code::Aborted,
            ErrorKind::Exhausted { .. } => Code::ResourceExhausted,
            ErrorKind::Unavailable { .. } => Code::Unavailable,
            ErrorKind::PermissionDenied => Code::PermissionDenied,
            ErrorKind::OutOfRange => Code::OutOfRange,
            ErrorKind::Unimplemented => Code::Unimplemented,
            ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
            ErrorKind::Internal => Code::Internal,
        }
    }

    /// The message and all causes, for a log.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        for cause in self.causes() {
            text.push_str(": ");
            text.push_str(&cause);
        }
        text
    }

    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }

    fn details(&self) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        match &self.kind {
            ErrorKind::Invalid(violations) => {
                for violation in within_a_header(violations) {
                    details.add_bad_request_violation(&violation.field, &violation.message);
                }
            }
            ErrorKind::NotFound { resource, name }
            | ErrorKind::AlreadyExists { resource, name } => {
                details.set_resource_info(*resource, name, "", &self.message);
            }
            ErrorKind::Precondition {
                violation,
                subject,
                fix,
            } => {
                details.add_precondition_failure_violation(*violation, subject, &self.message);
                if !fix.is_empty() {
                    details.add_help_link(fix, "");
                }
            }
            ErrorKind::Aborted => {
                details.set_retry_info(Some(ABORTED_RETRY));
            }
            ErrorKind::Exhausted { subject, retry } => {
                details.add_quota_failure_violation(subject, &self.message);
                if retry.is_some() {
                    details.set_retry_info(*retry);
                }
            }
            ErrorKind::Unavailable { retry } => {
                details.set_retry_info(Some(*retry));
            }
            ErrorKind::Internal => {
                details.set_debug_info(self.causes(), &self.message);
            }
            ErrorKind::PermissionDenied
            | ErrorKind::OutOfRange
            | ErrorKind::Unimplemented
            | ErrorKind::DeadlineExceeded => {}
        }
        details
    }
}

/// As many as the other side's gRPC library will take: it bounds the headers that details travel in.
fn within_a_header(violations: &[FieldViolation]) -> impl Iterator<Item = &FieldViolation> {
    let mut left = VIOLATIONS_BYTES_MAX;
    violations.iter().take_while(move |violation| {
        let bytes = VIOLATION_FRAME_BYTES + violation.field.len() + violation.message.len();
        left = left.saturating_sub(bytes);
        left > 0
    })
}

impl From<DriverError> for Status {
    fn from(error: DriverError) -> Self {
        // The wire is where the error leaves this process, so the causes go along.
        Status::with_error_details(error.code(), error.chain(), error.details())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_travel() {
        let violation = |field: &str| FieldViolation {
            field: field.to_owned(),
            message: "wrong".to_owned(),
        };
        let status = Status::from(DriverError::invalid(vec![violation("a"), violation("b")]));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let fields: Vec<_> = details
            .bad_request()
            .unwrap()
            .field_violations
            .iter()
            .collect();
        assert_eq!(fields.len(), 2);
        assert_eq!(fields[1].field, "b");
    }

    #[test]
    fn more_violations_than_a_header_takes_are_counted() {
        let violation = |number: usize| FieldViolation {
            field: format!("mounts[{number}].target"),
            message: "must be an absolute path".to_owned(),
        };
        let status = Status::from(DriverError::invalid((0..1000).map(violation).collect()));
        let details = status.get_error_details();
        let shown = details.bad_request().unwrap().field_violations.len();
        assert!((50..150).contains(&shown), "{shown}");
        assert!(status.message().contains("and 999 more"));
        assert!(status.details().len() < 4 << 10);
    }

    #[test]
    fn a_precondition_carries_its_fix() {
        let status = Status::from(DriverError::precondition(
            "PLATFORM_UNHEALTHY",
            "cgroup",
            "memory limits cannot be enforced",
            "systemctl edit cofferdam and add Delegate=yes",
        ));
        let details = status.get_error_details();
        assert_eq!(
            details.precondition_failure().unwrap().violations[0].subject,
            "cgroup"
        );
        assert!(
            details.help().unwrap().links[0]
                .description
                .contains("Delegate=yes")
        );
    }

    #[test]
    fn display_leaves_causes_to_the_chain() {
        let error = DriverError::unavailable("the engine does not answer")
            .because(std::io::Error::other("connection refused"));
        assert_eq!(error.to_string(), "the engine does not answer");
        assert_eq!(
            Status::from(error).message(),
            "the engine does not answer: connection refused"
        );
    }
}
