//! What can go wrong with an output log.

use std::io;
use std::path::{Path, PathBuf};

use crate::state_dir::Trouble;

/// An operation on an output log failed. The log itself is unchanged by a failed append.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The disk or the quota is used up.
    #[error("no space left for the output in {}", path.display())]
    Full {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The bytes on the disk are not those that were written.
    #[error("{} is damaged at output offset {offset}", path.display())]
    Damaged { path: PathBuf, offset: u64 },
}

impl OutputError {
    /// As what it says of the state directory that the log is in.
    pub fn trouble(&self, state_dir: &Path) -> Trouble {
        match self {
            Self::Full { source, .. } | Self::Io { source, .. } => Trouble::of(state_dir, source),
            Self::Damaged { .. } => Trouble::Failing {
                path: state_dir.to_owned(),
                detail: self.to_string(),
            },
        }
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(super) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { path, source }
            }
            _ => Self::Io {
                operation,
                path,
                source,
            },
        }
    }
}
