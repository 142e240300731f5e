//! Snapshots of fake sandboxes: copies of their workspaces.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{FakeDriver, FakeHandle, Key};
use crate::error::DriverError;
use crate::handle;
use crate::proto::{Handle, SnapshotSandboxResponse};

/// One that was taken.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) directory: PathBuf,
    size_bytes: u64,
}

impl FakeDriver {
    /// Takes one, unless there is one of this id.
    pub(super) async fn take(
        &self,
        key: &Key,
        snapshot_id: &str,
    ) -> Result<SnapshotSandboxResponse, DriverError> {
        let snapshot_key = (key.0.clone(), snapshot_id.to_owned());
        let (known, workspace) = {
            let state = self.lock();
            let entry = state.sandboxes.get(key);
            let entry = entry.ok_or_else(|| DriverError::sandbox_not_found(&key.1))?;
            let known = state.snapshots.get(&snapshot_key).cloned();
            (known, entry.workspace.clone())
        };
        let snapshot = match known {
            Some(snapshot) => snapshot,
            None => {
                let directory = self
                    .directory()
                    .join(".snapshots")
                    .join(format!("{}-{snapshot_id}", key.0));
                let size_bytes = copied(workspace, directory.clone()).await?;
                let new = Snapshot {
                    directory,
                    size_bytes,
                };
                let mut state = self.lock();
                state.snapshots.entry(snapshot_key).or_insert(new).clone()
            }
        };
        Ok(SnapshotSandboxResponse {
            handle: Some(self.handle()?),
            size_bytes: snapshot.size_bytes,
        })
    }

    /// What the driver wants back.
    pub(super) fn handle(&self) -> Result<Handle, DriverError> {
        let record = FakeHandle {
            incarnation: self.context.incarnation.to_string(),
        };
        handle::seal(&record)
            .map_err(|error| DriverError::internal("sealing a handle").because(error))
    }

    pub(super) fn snapshot_of(&self, key: &Key) -> Result<Snapshot, DriverError> {
        let found = self.lock().snapshots.get(key).cloned();
        found.ok_or_else(|| DriverError::not_found("snapshot", &key.1))
    }
}

/// Copies a tree to where nothing must be, on a thread that may wait. Cancelled, it goes on; the next
/// copy to the same place begins anew.
pub(super) async fn copied(from: PathBuf, to: PathBuf) -> Result<u64, DriverError> {
    let place = to.display().to_string();
    let work = move || {
        let _ = std::fs::remove_dir_all(&to);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        copy(&from, &to)
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DriverError::internal("copying a workspace").because(error))?
        .map_err(|error| DriverError::unavailable(format!("cannot copy to {place}")).because(error))
}

/// Files, directories and links, with modes and owners; the bytes of all files.
fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    let metadata = from.symlink_metadata()?;
    let kind = metadata.file_type();
    let mut bytes = 0;
    if kind.is_symlink() {
        std::os::unix::fs::symlink(std::fs::read_link(from)?, to)?;
    } else if kind.is_dir() {
        std::fs::create_dir(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            bytes += copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        std::fs::set_permissions(
            to,
            std::fs::Permissions::from_mode(metadata.mode() & 0o7777),
        )?;
    } else if kind.is_file() {
        bytes = std::fs::copy(from, to)?;
    } else {
        // Pipes and sockets are nothing without who holds them.
        return Ok(0);
    }
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    Ok(bytes)
}
