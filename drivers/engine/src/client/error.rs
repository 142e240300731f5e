//! What goes wrong between us and an engine, by who has to act.

use std::error::Error as StdError;
use std::time::Duration;

use crate::transport::BoxError;

/// The failure of one request.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}: {message}")]
pub(crate) struct EngineError {
    /// "create container".
    pub(crate) operation: &'static str,
    /// Its name.
    pub(crate) object: String,
    /// What the engine says, or what kept us from it.
    pub(crate) message: String,
    pub(crate) kind: Kind,
    #[source]
    pub(crate) source: Option<BoxError>,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// 404.
    NotFound,
    /// 409: exists already, is in use, is in another state.
    Conflict,
    /// 400: the engine does not take it.
    Invalid,
    /// 401, 403.
    Denied,
    /// The engine's disk is full.
    NoSpace,
    /// 5xx.
    Server,
    /// An answer that is none.
    Protocol,
}

impl EngineError {
    pub(crate) fn new(
        operation: &'static str,
        object: &str,
        kind: Kind,
        message: impl Into<String>,
    ) -> Self {
        Self {
            operation,
            object: object.to_owned(),
            message: message.into(),
            kind,
            source: None,
        }
    }

    pub(crate) fn timeout(operation: &'static str, object: &str, limit: Duration) -> Self {
        let message = format!("the engine did not answer within {} s", limit.as_secs());
        Self::new(operation, object, Kind::Timeout, message)
    }

    pub(crate) fn transport(operation: &'static str, object: &str, source: BoxError) -> Self {
        Self {
            source: Some(source),
            ..Self::new(
                operation,
                object,
                Kind::Unreachable,
                "the engine cannot be reached",
            )
        }
    }

    /// An answer with this status and this text.
    pub(crate) fn answered(operation: &'static str, object: &str, status: u16, text: &str) -> Self {
        Self::new(operation, object, kind_of(status, text), text.trim())
    }

    pub(crate) fn protocol(
        operation: &'static str,
        object: &str,
        source: impl Into<BoxError>,
    ) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(
                operation,
                object,
                Kind::Protocol,
                "the engine's answer cannot be read",
            )
        }
    }

    /// The message with all its causes.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(&format!(": {cause}"));
            next = cause.source();
        }
        text
    }
}

fn kind_of(status: u16, text: &str) -> Kind {
    // The engine has no status of its own for this one.
    if text.contains("no space left on device") || text.contains("disk quota exceeded") {
        return Kind::NoSpace;
    }
    // Podman's status for these is that of a failure of its own.
    if text.contains("no such container") {
        return Kind::NotFound;
    }
    if text.contains("is already in use") {
        return Kind::Conflict;
    }
    match status {
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        401 | 403 => Kind::Denied,
        400..500 => Kind::Invalid,
        _ => Kind::Server,
    }
}

/// `NotFound` is as good as done.
pub(crate) fn gone_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_or_taken_is_so_whatever_the_status() {
        let kind = |text: &str| EngineError::answered("ask for", "x", 500, text).kind;
        let gone = "container 3d does not exist in database: no such container";
        assert_eq!(kind(gone), Kind::NotFound);
        let taken = "the container name \"x\" is already in use by 3d";
        assert_eq!(kind(taken), Kind::Conflict);
        assert_eq!(kind("something else"), Kind::Server);
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let error = EngineError::answered(
            "create container",
            "x",
            500,
            "write /layer: no space left on device",
        );
        assert_eq!(error.kind, Kind::NoSpace);
        let error = EngineError::answered("create container", "x", 409, "is in use\n");
        assert_eq!(error.kind, Kind::Conflict);
        assert_eq!(error.to_string(), "create container x: is in use");
    }
}
