//! The supervisor's executable: read once, hashed, and kept in sealed memory, so that what every
//! sandbox executes is what was checked, whatever happens to the file later.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

/// The supervisor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("cannot read the supervisor {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what the gateway announced.
    #[error("the supervisor {} has sha256 {found}, expected {expected}", path.display())]
    Digest {
        /// Its path.
        path: PathBuf,
        /// What the gateway said.
        expected: String,
        /// What was read.
        found: String,
    },
    /// No sealed copy could be made.
    #[error("cannot make a sealed copy of the supervisor")]
    Seal(#[source] io::Error),
}

/// A supervisor that was checked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SupervisorImage {
    executable: Arc<OwnedFd>,
    sha256: String,
}

impl SupervisorImage {
    /// Reads and checks the file; `expected_sha256` is lower-case hexadecimal. Blocks for some
    /// milliseconds.
    pub fn load(path: &Path, expected_sha256: Option<&str>) -> Result<Self, ImageError> {
        let bytes = fs::read(path).map_err(|source| ImageError::Read {
            path: path.to_owned(),
            source,
        })?;
        let found = hex::encode(Sha256::digest(&bytes));
        if let Some(expected) = expected_sha256.filter(|expected| *expected != found) {
            let expected = expected.to_owned();
            return Err(ImageError::Digest {
                path: path.to_owned(),
                expected,
                found,
            });
        }
        let executable = Arc::new(seal(&bytes).map_err(ImageError::Seal)?);
        Ok(SupervisorImage {
            executable,
            sha256: found,
        })
    }

    /// Its sha256, lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    pub(super) fn executable(&self) -> BorrowedFd<'_> {
        self.executable.as_fd()
    }
}

fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let name = c"cofferdam-supervisor";
    // Kernels before 6.3 do not know the flag, and need none.
    let memory = match memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}
