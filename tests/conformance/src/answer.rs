//! What a driver answered when it did not do what it was asked for.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::case::Stop;

/// A call that did not succeed.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) rpc: &'static str,
    pub(crate) how: How,
}

#[derive(Debug, Clone)]
pub(crate) enum How {
    /// With a status.
    Status(Box<Status>),
    /// It did not answer for so long, though its deadline had passed.
    Silent(Duration),
    /// The connection ended.
    Cut(String),
}

impl Refused {
    /// The status's code, if there was one.
    pub(crate) fn code(&self) -> Option<Code> {
        match &self.how {
            How::Status(status) => Some(status.code()),
            How::Silent(_) | How::Cut(_) => None,
        }
    }

    pub(crate) fn message(&self) -> &str {
        match &self.how {
            How::Status(status) => status.message(),
            How::Silent(_) | How::Cut(_) => "",
        }
    }

    /// The fields of a `BadRequest`.
    pub(crate) fn fields(&self) -> Vec<String> {
        let How::Status(status) = &self.how else {
            return Vec::new();
        };
        let request = status.get_details_bad_request();
        let violations = request.into_iter().flat_map(|one| one.field_violations);
        violations.map(|violation| violation.field).collect()
    }

    /// The types of a `PreconditionFailure`.
    pub(crate) fn precondition_types(&self) -> Vec<String> {
        let How::Status(status) = &self.how else {
            return Vec::new();
        };
        let failure = status.get_details_precondition_failure();
        let violations = failure.into_iter().flat_map(|one| one.violations);
        violations.map(|violation| violation.r#type).collect()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rpc = self.rpc;
        match &self.how {
            How::Status(status) => {
                let code = code_name(status.code());
                write!(f, "{rpc} answered {code}: {:?}", status.message())
            }
            How::Silent(waited) => write!(
                f,
                "{rpc} gave no answer within {:.1} s",
                waited.as_secs_f64()
            ),
            How::Cut(reason) => write!(f, "the connection ended in {rpc}: {reason}"),
        }
    }
}

/// The call must have been refused with this code.
pub(crate) fn refused_with<T: fmt::Debug>(
    result: Result<T, Refused>,
    code: Code,
) -> Result<Refused, Stop> {
    refused_with_one_of(result, &[code])
}

/// The call must have been refused with one of these codes.
pub(crate) fn refused_with_one_of<T: fmt::Debug>(
    result: Result<T, Refused>,
    codes: &[Code],
) -> Result<Refused, Stop> {
    let wanted: Vec<&str> = codes.iter().map(|code| code_name(*code)).collect();
    let wanted = wanted.join(" or ");
    match result {
        Ok(answer) => Err(Stop::failed(format!(
            "the call succeeded where {wanted} was expected: {}",
            shortened(&format!("{answer:?}"))
        ))),
        Err(refused) if refused.code().is_some_and(|code| codes.contains(&code)) => Ok(refused),
        Err(refused) => Err(Stop::failed(format!("{refused}; {wanted} was expected"))),
    }
}

/// As gRPC's documents write it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Enough of a long text.
pub(crate) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(CHARS_MAX).collect();
    format!("{start}…")
}
