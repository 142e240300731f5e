//! What can be wrong with the state directory, in words for people.

use std::io;
use std::path::{Path, PathBuf};

use crate::units::show_size;

/// Nothing can be written now. Somebody has to do something about the machine, not about a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("the state directory {} is full{}", path.display(), left(.left_bytes))]
    Full {
        path: PathBuf,
        /// How much there is, where that is known; the last of it is kept for records.
        left_bytes: Option<u64>,
    },
    #[error("the state directory {} is read-only", path.display())]
    ReadOnly { path: PathBuf },
    #[error("the state directory {} cannot be written: {detail}", path.display())]
    Failing { path: PathBuf, detail: String },
}

fn left(bytes: &Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!(" ({} left)", show_size(*bytes)),
        None => String::new(),
    }
}

impl Trouble {
    /// What an operation on a file below the state directory has met.
    pub fn of(state_dir: &Path, error: &io::Error) -> Self {
        let path = state_dir.to_owned();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                path,
                left_bytes: None,
            },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            _ => Self::Failing {
                path,
                detail: error.to_string(),
            },
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Full { .. } => {
                "free space on its file system; what runs waits, and everything goes on by itself"
            }
            Self::ReadOnly { .. } => {
                "the kernel's log says why; once it can be written, everything goes on by itself"
            }
            Self::Failing { .. } => {
                "check the disk and the permissions; everything goes on by itself once it can be \
                 written"
            }
        }
    }

    pub(super) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}
