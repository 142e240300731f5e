//! The directory of one sandbox's socket, which is what the sandbox gets to see.
//!
//! A supervisor holds on to the *directory* over restarts of the gateway, so it must stay the same
//! inode for as long as the sandbox lives: it is made once, taken over by every later gateway, and
//! removed only with the sandbox.

use std::collections::HashSet;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::CallbackError;
use crate::model::SandboxId;
use crate::transport;

const SOCKET: &str = "gateway.sock";

/// The directory `<runtime_dir>/callback/<sandbox>`.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes it, or takes over the one that is there.
    pub(super) fn open(runtime_dir: &Path, sandbox: &SandboxId) -> Result<Self, CallbackError> {
        let parent = parent(runtime_dir);
        // Others on this host must not get to any sandbox's socket.
        private(&parent, 0o700)?;
        let path = parent.join(sandbox.as_str());
        private(&path, 0o755)?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Listens. Any user may connect who can see the directory: in a sandbox ids are mapped.
    pub(super) fn listen(&self) -> Result<UnixListener, CallbackError> {
        let path = self.path.join(SOCKET);
        let error = |source| CallbackError::Listen {
            path: path.clone(),
            source,
        };
        // Of a gateway that ran before.
        ignore_missing(std::fs::remove_file(&path)).map_err(error)?;
        let listener = transport::bind_unnamed(&path).map_err(error)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(error)?;
        Ok(listener)
    }

    /// The sandbox is gone.
    pub(super) fn remove(&self) -> io::Result<()> {
        ignore_missing(std::fs::remove_file(self.path.join(SOCKET)))?;
        ignore_missing(std::fs::remove_dir(&self.path))
    }
}

/// Removes the directories of sandboxes that are not among `alive`: those of sandboxes whose end a
/// crash has hidden from the gateway. To be called before any callback is opened.
pub fn remove_stale(runtime_dir: &Path, alive: &HashSet<SandboxId>) -> io::Result<()> {
    let entries = match std::fs::read_dir(parent(runtime_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| SandboxId::parse(name).ok());
        if id.is_some_and(|id| !alive.contains(&id)) {
            let path = entry.path();
            if let Err(error) = (Directory { path }).remove() {
                tracing::warn!(path = %entry.path().display(), %error, "stale directory stays");
            }
        }
    }
    Ok(())
}

fn parent(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("callback")
}

/// A directory of this user's with exactly this mode. Never follows or replaces anything else.
fn private(path: &Path, mode: u32) -> Result<(), CallbackError> {
    let error = |source| CallbackError::Directory {
        path: path.to_owned(),
        source,
    };
    let foreign = |problem: String| CallbackError::Foreign {
        path: path.to_owned(),
        problem,
    };
    match DirBuilder::new().mode(mode).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(error(source)),
        _ => {}
    }
    let metadata = path.symlink_metadata().map_err(error)?;
    if !metadata.is_dir() {
        return Err(foreign("it is not a directory".to_owned()));
    }
    let own_uid = rustix::process::geteuid().as_raw();
    if metadata.uid() != own_uid {
        return Err(foreign(format!("it belongs to uid {}", metadata.uid())));
    }
    if metadata.mode() & 0o7777 != mode {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(error)?;
    }
    Ok(())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
