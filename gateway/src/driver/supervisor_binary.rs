//! The supervisor that drivers put into sandboxes: where it is and exactly which one.

use std::path::{Path, PathBuf};

/// A supervisor executable on this host, as drivers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorBinary {
    pub path: PathBuf,
    pub sha256: [u8; 32],
    pub version: String,
    /// As in `uname -m`.
    pub architecture: String,
}

/// The supervisor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorBinaryError {
    #[error("cannot read the supervisor {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the supervisor {path} {problem}")]
    Unfit { path: PathBuf, problem: String },
}

impl SupervisorBinary {
    /// Reads and hashes the file, and asks it for its version.
    pub async fn load(path: &Path) -> Result<Self, SupervisorBinaryError> {
        let _ = path;
        todo!()
    }
}
