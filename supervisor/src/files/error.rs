//! Why a file operation failed: what was tried, on what, and the kernel's word.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use thiserror::Error;

/// See the module.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    #[error("cannot {action} {path:?}: {}", io::Error::from(*.errno))]
    System {
        action: &'static str,
        path: String,
        errno: Errno,
    },
    #[error("{path:?}: {problem}")]
    Path { path: String, problem: &'static str },
    #[error("{path:?} is not {expected}")]
    Kind {
        path: String,
        expected: &'static str,
    },
    #[error("{path:?}: a process's own files can only be read by a process in the sandbox")]
    Hidden { path: String },
    #[error("{path:?}: the sha256 of what came is {found}")]
    Digest { path: String, found: String },
    #[error("{path:?} became shorter while it was read")]
    Shrank { path: String },
    #[error("the archive is damaged: {0}")]
    Archive(String),
    #[error("the archive's entry {path:?} {problem}")]
    Entry { path: String, problem: &'static str },
    /// The other side of the stream has gone, or stands still.
    #[error("the stream of the archive broke off")]
    Stream,
}

impl FileError {
    /// For `map_err`: an action that failed on a path.
    pub(crate) fn system<'a>(
        action: &'static str,
        path: &'a (impl AsRef<Path> + ?Sized),
    ) -> impl Fn(Errno) -> Self + 'a {
        let path = path.as_ref();
        move |errno| Self::System {
            action,
            path: path.to_string_lossy().into_owned(),
            errno,
        }
    }

    /// The same for errors of the standard library.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a (impl AsRef<Path> + ?Sized),
    ) -> impl Fn(io::Error) -> Self + 'a {
        move |error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Self::system(action, path)(errno)
        }
    }
}
