//! The gateway's supervisor binary, verified, and what it is told when it starts.
//!
//! The handshake names a file and its SHA-256. [`SupervisorBinary::open`] reads the file once,
//! checks it, and keeps the bytes in a sealed memory file, so that what was checked is what runs:
//! nobody can change it afterwards, neither on the disk nor through a running supervisor's
//! `/proc/1/exe`.

mod bootstrap;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use sha2::{Digest as _, Sha256};

use crate::error::DriverError;
use crate::proto::Supervisor;

pub use bootstrap::{BOOTSTRAP_BYTES_MAX, Bootstrap, Descriptors, OOM_SCORE_ADJ, Token, Workload};

/// A supervisor is a few megabytes; more is a mistake.
pub const SUPERVISOR_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a supervisor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The gateway named none in its handshake.
    #[error("the gateway has named no supervisor binary in its handshake")]
    Missing,
    /// The file cannot be read.
    #[error("the supervisor binary {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a device, or much too large.
    #[error("the supervisor binary {path} is not a regular file of at most 64 MiB")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The bytes are not the ones that the gateway means.
    #[error("the supervisor binary {path} has the sha256 {found}, and the gateway wants {wanted}")]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// Of its bytes.
        found: String,
        /// From the handshake.
        wanted: String,
    },
    /// No memory file could be made.
    #[error("the supervisor binary cannot be kept in memory")]
    Memory(#[source] io::Error),
}

impl From<SupervisorError> for DriverError {
    fn from(error: SupervisorError) -> Self {
        let fix = match &error {
            SupervisorError::WrongDigest { path, .. } => format!(
                "install the same version of Cofferdam's gateway and supervisor: {} has changed \
                 since the gateway started; restart the gateway",
                path.display()
            ),
            SupervisorError::Unreadable { path, .. } | SupervisorError::NotAFile { path } => {
                format!(
                    "make {} readable for the driver, or set `supervisor_path` in its settings",
                    path.display()
                )
            }
            SupervisorError::Missing | SupervisorError::Memory(_) => String::new(),
        };
        DriverError::precondition("SUPERVISOR", "supervisor", error.to_string(), fix).because(error)
    }
}

/// A supervisor's executable in sealed memory: bytes that nobody can change any more. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SupervisorBinary(Arc<OwnedFd>);

impl SupervisorBinary {
    /// Reads and checks the supervisor of a handshake; `instead_of_path` is the operator's own
    /// place for it, if the gateway's path cannot be reached from here. Blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be read, or is not what the gateway means.
    pub fn open(
        supervisor: Option<&Supervisor>,
        instead_of_path: Option<&Path>,
    ) -> Result<Self, SupervisorError> {
        let supervisor = supervisor.ok_or(SupervisorError::Missing)?;
        let path = instead_of_path.unwrap_or(Path::new(&supervisor.path));
        let bytes = read(path)?;
        let found = Sha256::digest(&bytes);
        if found[..] != supervisor.sha256[..] {
            return Err(SupervisorError::WrongDigest {
                path: path.to_owned(),
                found: hex::encode(found),
                wanted: hex::encode(&supervisor.sha256),
            });
        }
        Self::seal(&bytes)
    }

    /// Reads an executable of the driver's own, which nobody has named a digest of. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn unchecked(path: &Path) -> Result<Self, SupervisorError> {
        Self::seal(&read(path)?)
    }

    /// A copy that may be executed but not read by whom its owner's rights do not reach: in a user
    /// namespace that does not know the owner, the kernel then gives the process's files in `/proc`
    /// to the host's root, instead of to the namespace's.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn execute_only(&self) -> io::Result<Self> {
        Ok(Self(Arc::new(sealed(&self.read()?, 0o111)?)))
    }

    fn seal(bytes: &[u8]) -> Result<Self, SupervisorError> {
        let memory = sealed(bytes, 0o555).map_err(SupervisorError::Memory)?;
        Ok(Self(Arc::new(memory)))
    }

    /// A path that opens it in this process, for APIs that take only paths.
    #[must_use]
    pub fn proc_path(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// The bytes, for platforms that take a copy.
    ///
    /// # Errors
    /// When the kernel cannot read its own memory file.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.proc_path())?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl AsFd for SupervisorBinary {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SupervisorError> {
    let unreadable = |source| SupervisorError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than allowed: a file that grows while it is read is noticed as well.
    let limit = SUPERVISOR_BYTES_MAX + 1;
    let size = if meta.is_file() {
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(unreadable)? as u64
    } else {
        limit
    };
    if size > SUPERVISOR_BYTES_MAX {
        let path = path.to_owned();
        return Err(SupervisorError::NotAFile { path });
    }
    Ok(bytes)
}

fn sealed(bytes: &[u8], mode: u32) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels since 6.3 want to be told that it will be executed; older ones refuse the flag.
    let memory = rustix::fs::memfd_create("cofferdam-supervisor", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("cofferdam-supervisor", flags))?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
    seal(&file)?;
    Ok(file.into())
}

/// A page that the kernel itself holds for a moment (it moves and scans memory) makes it busy: each
/// attempt waits a while in the kernel.
fn seal(file: &File) -> io::Result<()> {
    const ATTEMPTS_MAX: u32 = 20;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let mut attempts = 1;
    loop {
        match rustix::fs::fcntl_add_seals(file, seals) {
            Err(rustix::io::Errno::BUSY) if attempts < ATTEMPTS_MAX => attempts += 1,
            other => return Ok(other?),
        }
    }
}

/// Verified supervisors by their digest: one per version of a gateway, however many sandboxes.
#[derive(Debug, Default)]
pub struct SupervisorCache(Mutex<HashMap<Vec<u8>, SupervisorBinary>>);

/// More versions at a time than a host that is being upgraded ever has.
const CACHED_MAX: usize = 8;

impl SupervisorCache {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`SupervisorBinary::open`], but reads each version only once. Blocks on the disk then.
    ///
    /// # Errors
    /// As [`SupervisorBinary::open`].
    pub fn open(
        &self,
        supervisor: Option<&Supervisor>,
        instead_of_path: Option<&Path>,
    ) -> Result<SupervisorBinary, SupervisorError> {
        let digest = &supervisor.ok_or(SupervisorError::Missing)?.sha256;
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(binary) = cached.get(&digest[..]) {
            return Ok(binary.clone());
        }
        let binary = SupervisorBinary::open(supervisor, instead_of_path)?;
        if cached.len() >= CACHED_MAX {
            cached.clear();
        }
        cached.insert(digest.to_vec(), binary.clone());
        Ok(binary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor(path: &Path, content: &[u8]) -> Supervisor {
        Supervisor {
            path: path.to_str().unwrap().to_owned(),
            sha256: Sha256::digest(content).to_vec().into(),
            ..Supervisor::default()
        }
    }

    #[test]
    fn what_was_checked_is_what_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("supervisor");
        std::fs::write(&path, "#!one").unwrap();
        let binary = SupervisorBinary::open(Some(&supervisor(&path, b"#!one")), None).unwrap();
        std::fs::write(&path, "#!two").unwrap();
        assert_eq!(binary.read().unwrap(), b"#!one");
        let write = std::fs::OpenOptions::new()
            .write(true)
            .open(binary.proc_path());
        assert!(write.is_err() || write.unwrap().write_all(b"x").is_err());
    }

    #[test]
    fn another_digest_is_refused_with_a_fix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("supervisor");
        std::fs::write(&path, "other").unwrap();
        let error = SupervisorBinary::open(Some(&supervisor(&path, b"wanted")), None).unwrap_err();
        assert!(matches!(error, SupervisorError::WrongDigest { .. }));
        let error = DriverError::from(error);
        assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    }

    #[test]
    fn the_operators_path_is_used_instead() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("here");
        std::fs::write(&here, "x").unwrap();
        let wanted = supervisor(Path::new("/not/here"), b"x");
        let cache = SupervisorCache::new();
        assert!(cache.open(Some(&wanted), None).is_err());
        assert!(cache.open(Some(&wanted), Some(&here)).is_ok());
        std::fs::remove_file(&here).unwrap();
        assert!(
            cache.open(Some(&wanted), Some(&here)).is_ok(),
            "read only once"
        );
    }

    #[test]
    fn a_directory_or_nothing_is_no_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        let error = SupervisorBinary::open(Some(&supervisor(dir.path(), b"")), None).unwrap_err();
        assert!(matches!(error, SupervisorError::NotAFile { .. }), "{error}");
        assert!(matches!(
            SupervisorBinary::open(None, None),
            Err(SupervisorError::Missing)
        ));
    }
}
