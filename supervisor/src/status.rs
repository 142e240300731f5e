//! The one place where errors become gRPC statuses.

use tonic::Status;

use crate::process::{SpecError, StdinError, TableError};
use crate::signal::NoSuchSignal;

impl From<TableError> for Status {
    fn from(error: TableError) -> Self {
        let message = error.to_string();
        match error {
            TableError::BadId => Self::invalid_argument(message),
            TableError::Unknown(_) => Self::not_found(message),
            TableError::Running(_) => Self::failed_precondition(message),
            TableError::Full => Self::resource_exhausted(message),
        }
    }
}

impl From<SpecError> for Status {
    fn from(error: SpecError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<StdinError> for Status {
    fn from(error: StdinError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<NoSuchSignal> for Status {
    fn from(error: NoSuchSignal) -> Self {
        Self::invalid_argument(format!("signal: {error}"))
    }
}
