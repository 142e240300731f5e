//! Why a callback socket cannot be opened.

use std::path::PathBuf;

/// Opening a sandbox's callback socket failed.
#[derive(Debug, thiserror::Error)]
pub enum CallbackError {
    #[error("cannot make the callback directory {path}")]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the callback directory {path} is not this gateway's: {problem}")]
    Foreign { path: PathBuf, problem: String },
    #[error("cannot listen on the callback socket {path}")]
    Listen {
        path: PathBuf,
        source: std::io::Error,
    },
}
