//! What goes wrong with an engine, in the contract's words: the only place where it is decided.

use cofferdam_driver_sdk::DriverError;

use crate::client::{EngineError, Kind};

/// A request to the engine failed.
pub(crate) fn engine(error: EngineError) -> DriverError {
    let text = error.chain();
    match error.kind {
        Kind::Unreachable | Kind::Timeout => DriverError::unavailable(text),
        Kind::NoSpace => DriverError::exhausted("the engine's disk", text, None),
        Kind::Conflict => DriverError::aborted(text),
        Kind::NotFound => {
            DriverError::not_found("object of the engine", error.object.clone()).because(error)
        }
        Kind::Invalid => DriverError::invalid_field("driver_config", text),
        Kind::Denied => DriverError::precondition(
            "ENGINE_ACCESS",
            error.object.clone(),
            text,
            "let the driver's user use the engine",
        ),
        Kind::Server => DriverError::precondition(
            "ENGINE",
            error.object.clone(),
            text,
            "see the engine's own log for more",
        ),
        Kind::Protocol => DriverError::internal(text),
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_driver_sdk::error::ErrorKind;

    use super::*;

    #[test]
    fn who_has_to_act_follows_from_the_kind() {
        let error =
            |status, text| engine(EngineError::answered("start container", "x", status, text));
        assert!(matches!(
            error(500, "write: no space left on device").kind(),
            ErrorKind::Exhausted { .. }
        ));
        assert!(matches!(
            error(500, "runc").kind(),
            ErrorKind::Precondition { .. }
        ));
        assert!(matches!(error(400, "bad").kind(), ErrorKind::Invalid(_)));
        assert!(matches!(error(409, "busy").kind(), ErrorKind::Aborted));
    }
}
