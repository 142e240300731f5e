//! The one place where errors become what callers see: a code, a stable reason, a sentence, a hint.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::driver::{CallError, CallErrorKind, Violation};
use crate::execution::{FindError, FollowError, StartError};
use crate::sandbox::CreateError;
use crate::state_dir::Trouble;
use crate::store::StoreError;

/// An error on its way to a caller.
#[derive(Debug)]
pub(super) struct ApiError {
    code: Code,
    reason: &'static str,
    message: String,
    hint: String,
    violations: Vec<Violation>,
    retry: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            hint: String::new(),
            violations: Vec::new(),
            retry: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(super) fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    /// All that is wrong with a request.
    pub(super) fn invalid(reason: &'static str, violations: Vec<Violation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is not valid".to_owned(),
            [one] if one.field.is_empty() => one.message.clone(),
            [one] => format!("{}: {}", one.field, one.message),
            many => format!("the request has {} problems", many.len()),
        };
        let mut error = Self::new(Code::InvalidArgument, reason, message);
        error.violations = violations;
        error
    }

    pub(super) fn field(field: &str, message: impl Into<String>) -> Self {
        Self::invalid(
            "INVALID_REQUEST",
            vec![Violation {
                field: field.to_owned(),
                message: message.into(),
            }],
        )
    }

    pub(super) fn no_sandbox(name: &str) -> Self {
        Self::new(
            Code::NotFound,
            "SANDBOX_NOT_FOUND",
            format!("there is no sandbox {name:?}"),
        )
        .hint("`cofferdam ls -a` lists those that exist")
    }

    pub(super) fn no_execution(id: &str) -> Self {
        Self::new(
            Code::NotFound,
            "EXECUTION_NOT_FOUND",
            format!("there is no execution {id:?}"),
        )
        .hint("`cofferdam ps -a` lists those that are known")
    }

    pub(super) fn draining() -> Self {
        Self::new(
            Code::Unavailable,
            "DRAINING",
            "the gateway is shutting down and takes no new work",
        )
        .retry(Duration::from_secs(2))
    }
}

/// What callers see travels in HTTP/2 headers, of which a client takes 16 KiB at most, encoded: a text
/// that quotes what a caller has sent is cut.
const TEXT_BYTES_MAX: usize = 1500;
const VIOLATIONS_BYTES_MAX: usize = 4000;
const FIELD_BYTES_MAX: usize = 200;

fn bounded(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let bytes = text.len();
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push_str(&format!("… ({bytes} bytes)"));
    }
}

/// The first ones, and how many more there are.
fn bounded_violations(violations: &mut Vec<Violation>) {
    let mut bytes = 0;
    for violation in violations.iter_mut() {
        bounded(&mut violation.field, FIELD_BYTES_MAX);
        bounded(&mut violation.message, TEXT_BYTES_MAX);
    }
    let fits = violations.iter().take_while(|violation| {
        bytes += violation.field.len() + violation.message.len();
        bytes <= VIOLATIONS_BYTES_MAX
    });
    let fits = fits.count();
    if fits < violations.len() {
        let more = violations.len() - fits;
        violations.truncate(fits);
        violations.push(Violation {
            field: String::new(),
            message: format!("and {more} more problems"),
        });
    }
}

impl From<ApiError> for Status {
    fn from(mut error: ApiError) -> Self {
        bounded(&mut error.message, TEXT_BYTES_MAX);
        bounded(&mut error.hint, TEXT_BYTES_MAX);
        bounded_violations(&mut error.violations);
        let request_id = format!("req-{:016x}", rand::random::<u64>());
        tracing::debug!(
            request.id = request_id,
            code = ?error.code,
            reason = error.reason,
            message = error.message,
            "request refused"
        );
        let mut metadata = HashMap::from([("request_id".to_owned(), request_id)]);
        if !error.hint.is_empty() {
            metadata.insert("hint".to_owned(), error.hint);
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(error.reason, "cofferdam", metadata);
        for violation in error.violations {
            details.add_bad_request_violation(violation.field, violation.message);
        }
        if let Some(after) = error.retry {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(error.code, error.message, details)
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let (code, reason) = match error.kind {
            CallErrorKind::Invalid => {
                let mut invalid = Self::invalid("INVALID_SPEC", error.violations);
                if invalid.violations.is_empty() {
                    invalid.message = error.message;
                }
                return invalid.hint(error.fix);
            }
            CallErrorKind::NotFound => (Code::NotFound, "OBJECT_NOT_FOUND"),
            CallErrorKind::AlreadyExists => (Code::AlreadyExists, "ID_CONFLICT"),
            CallErrorKind::Denied => (Code::FailedPrecondition, "ACCESS_DENIED"),
            CallErrorKind::Precondition => (Code::FailedPrecondition, "DRIVER_UNHEALTHY"),
            CallErrorKind::Exhausted { .. } => (Code::ResourceExhausted, "NO_RESOURCES"),
            CallErrorKind::Unimplemented => (Code::InvalidArgument, "CAPABILITY_MISMATCH"),
            CallErrorKind::Internal => (Code::Internal, "DRIVER_FAULT"),
            CallErrorKind::Unavailable | CallErrorKind::Timeout | CallErrorKind::Unreachable => {
                (Code::Unavailable, "DRIVER_UNAVAILABLE")
            }
        };
        let retry = match error.kind {
            CallErrorKind::Exhausted { retry } => retry,
            CallErrorKind::Unavailable => Some(Duration::from_secs(1)),
            _ => None,
        };
        let mut api = Self::new(code, reason, error.message).hint(error.fix);
        api.retry = retry;
        api
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let Some(trouble) = error.trouble() {
            return trouble.into();
        }
        let text = error.to_string();
        match error {
            StoreError::NameTaken { .. } => Self::new(Code::AlreadyExists, "NAME_TAKEN", text)
                .hint("choose another name, or delete the sandbox that has it"),
            StoreError::KeyUsed { .. } => {
                Self::new(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED", text)
                    .hint("use a new idempotency key for another request")
            }
            other => {
                tracing::error!(error = &other as &dyn std::error::Error, "store failed");
                Self::new(Code::Internal, "STORE_FAILED", text)
                    .hint("see the gateway's log; `cofferdam doctor` checks the host")
            }
        }
    }
}

impl From<Trouble> for ApiError {
    fn from(trouble: Trouble) -> Self {
        let (code, reason) = match trouble {
            Trouble::Full { .. } => (Code::ResourceExhausted, "STATE_DIR_FULL"),
            Trouble::ReadOnly { .. } => (Code::Unavailable, "STATE_DIR_READ_ONLY"),
            Trouble::Failing { .. } => (Code::Unavailable, "STATE_DIR_FAILING"),
        };
        Self::new(code, reason, trouble.to_string())
            .hint(trouble.hint())
            .retry(Duration::from_secs(10))
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::TooMany { .. } => {
                Self::new(Code::ResourceExhausted, "LIMIT_REACHED", error.to_string())
                    .hint(
                        "delete sandboxes that are not needed, or raise sandbox.maximum.sandboxes",
                    )
                    .retry(Duration::from_secs(5))
            }
            CreateError::StateDir(trouble) => trouble.into(),
            CreateError::Store(error) => error.into(),
        }
    }
}

impl From<StartError> for ApiError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::QueueFull { .. } | StartError::PartFull { .. } => {
                Self::new(Code::ResourceExhausted, "QUEUE_FULL", error.to_string())
                    .hint("try again later, or raise executions.queue_max")
                    .retry(Duration::from_secs(1))
            }
            StartError::StateDir(trouble) => trouble.into(),
            StartError::Sandbox(error) => error.into(),
            StartError::Store(error) => error.into(),
        }
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Store(error) => error.into(),
            FindError::Output(error) => output(&error),
        }
    }
}

impl From<FollowError> for ApiError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::ShuttingDown => Self::new(
                Code::Unavailable,
                "DRAINING",
                "the gateway is shutting down; attach again to follow the execution",
            ),
            FollowError::Output(error) => output(&error),
        }
    }
}

fn output(error: &crate::output::OutputError) -> ApiError {
    tracing::error!(error = error as &dyn std::error::Error, "output failed");
    ApiError::new(
        Code::Internal,
        "OUTPUT_FAILED",
        format!("the stored output cannot be read: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client takes of headers, by default.
    const HEADERS_BYTES_MAX: usize = 16 << 10;

    fn header_bytes(error: ApiError) -> usize {
        let status = Status::from(error);
        let headers = status.into_http::<()>().into_parts().0.headers;
        let bytes = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len());
        bytes.sum()
    }

    #[test]
    fn whatever_a_caller_has_sent_the_answer_fits_into_headers() {
        for text in ["x".repeat(70_000), "ß".repeat(70_000)] {
            let violation = || Violation {
                field: text.clone(),
                message: text.clone(),
            };
            for error in [
                ApiError::no_sandbox(&text),
                ApiError::field(&text, &text),
                ApiError::invalid("INVALID_SPEC", (0..900).map(|_| violation()).collect()),
                ApiError::new(Code::Internal, "X", &text).hint(&text),
            ] {
                let bytes = header_bytes(error);
                assert!(bytes < HEADERS_BYTES_MAX, "{bytes}");
            }
        }
    }

    #[test]
    fn what_fits_is_told_as_it_is() {
        let mut text = "x".repeat(TEXT_BYTES_MAX);
        bounded(&mut text, TEXT_BYTES_MAX);
        assert_eq!(text.len(), TEXT_BYTES_MAX);
        let one = |message: &str| Violation {
            field: "memory_bytes".to_owned(),
            message: message.to_owned(),
        };
        let mut some = vec![one("too small"), one("too large")];
        bounded_violations(&mut some);
        assert_eq!(some.len(), 2);
    }
}
