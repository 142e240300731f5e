//! The one place where errors become gRPC statuses.

use rustix::io::Errno;
use tonic::{Code, Status};

use crate::files::FileError;
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

impl From<FileError> for Status {
    fn from(error: FileError) -> Self {
        let code = match &error {
            FileError::System { errno, .. } => of_errno(*errno),
            FileError::Path { .. } | FileError::Archive(_) | FileError::Entry { .. } => {
                Code::InvalidArgument
            }
            FileError::Kind { .. } => Code::FailedPrecondition,
            FileError::Hidden { .. } => Code::PermissionDenied,
            FileError::Digest { .. } => Code::DataLoss,
            FileError::Shrank { .. } | FileError::Stream => Code::Aborted,
        };
        Self::new(code, error.to_string())
    }
}

/// By who has to act: the caller with another path, the caller with other rights, …
fn of_errno(errno: Errno) -> Code {
    match errno {
        Errno::NOENT => Code::NotFound,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Code::PermissionDenied,
        Errno::EXIST => Code::AlreadyExists,
        Errno::NOTDIR | Errno::ISDIR | Errno::NOTEMPTY | Errno::BUSY | Errno::TXTBSY => {
            Code::FailedPrecondition
        }
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::NOMEM | Errno::MFILE | Errno::NFILE => {
            Code::ResourceExhausted
        }
        Errno::INVAL | Errno::NAMETOOLONG | Errno::LOOP | Errno::XDEV => Code::InvalidArgument,
        _ => Code::Internal,
    }
}
