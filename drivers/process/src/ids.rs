//! Host ids for sandboxes, when the driver is root: each sandbox owns a block of sixteen that
//! nothing else on this host uses.
//!
//! A claim is a file named after the block, in a directory that all drivers of a host share; a
//! lock on the directory makes a claim and its release atomic. A claim whose sandbox has no state
//! directory any more is void.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::sandbox::plan::ID_BLOCK_SIZE;

/// Above every range that distributions and systemd give out (the last ends at 0x6FFF_FFFF).
const FIRST_HOST_ID: u32 = 0x7000_0000;
/// Blocks of the range: far more than sandboxes one host can hold.
const BLOCKS: u32 = 1 << 20;

/// Where claims lie unless configured: one place for a host, forgotten at boot like the sandboxes.
pub const CLAIMS_DIR: &str = "/run/cofferdam/process-ids";

/// A block could not be claimed or released.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    /// The claims cannot be read or written.
    #[error("cannot use the id claims in {}", dir.display())]
    Claims {
        /// The claims directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every block is claimed.
    #[error("all {BLOCKS} id blocks are claimed in {}", dir.display())]
    Exhausted {
        /// The claims directory.
        dir: PathBuf,
    },
}

/// The host's id blocks.
#[derive(Debug, Clone)]
pub struct IdBlocks {
    dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    sandbox_id: String,
    state_dir: PathBuf,
}

impl IdBlocks {
    /// Blocks claimed in `dir`, which is made when missing.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        IdBlocks { dir: dir.into() }
    }

    /// Where the claims lie.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Claims a block for a sandbox and returns its first id. `state_dir` must exist already: a
    /// claim lives as long as it does. Blocks: a lock, and a few files.
    pub fn claim(&self, sandbox_id: &str, state_dir: &Path) -> Result<u32, IdError> {
        let _lock = self.lock().map_err(|source| self.failed(source))?;
        let claim = Claim {
            sandbox_id: sandbox_id.to_owned(),
            state_dir: state_dir.to_owned(),
        };
        let start = spread(sandbox_id);
        for step in 0..BLOCKS {
            let first = FIRST_HOST_ID + (start.wrapping_add(step) % BLOCKS) * ID_BLOCK_SIZE;
            if self
                .take(first, &claim)
                .map_err(|source| self.failed(source))?
            {
                return Ok(first);
            }
        }
        Err(IdError::Exhausted {
            dir: self.dir.clone(),
        })
    }

    /// Releases a block; one that is not this sandbox's is left alone.
    pub fn release(&self, first: u32, sandbox_id: &str) -> Result<(), IdError> {
        let release = || {
            let _lock = self.lock()?;
            let path = self.path(first);
            match read_claim(&path)? {
                Some(claim) if claim.sandbox_id == sandbox_id => fs::remove_file(path),
                _ => Ok(()),
            }
        };
        release().map_err(|source| self.failed(source))
    }

    fn take(&self, first: u32, claim: &Claim) -> io::Result<bool> {
        let path = self.path(first);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            // A claim that cannot be read is somebody's still.
            Ok(_) => match read_claim(&path)? {
                Some(old) if !old.state_dir.exists() => fs::remove_file(&path)?,
                _ => return Ok(false),
            },
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&serde_json::to_vec(claim)?)?;
        Ok(true)
    }

    fn lock(&self) -> io::Result<File> {
        // What is above it may be the gateway's, with a socket that others are to find.
        let mut directories = fs::DirBuilder::new();
        directories.recursive(true);
        if let Some(above) = self.dir.parent() {
            directories.mode(0o755).create(above)?;
        }
        directories.mode(0o700).create(&self.dir)?;
        let dir = File::open(&self.dir)?;
        flock(&dir, FlockOperation::LockExclusive)?;
        Ok(dir)
    }

    fn path(&self, first: u32) -> PathBuf {
        self.dir.join(format!("{first:08x}"))
    }

    fn failed(&self, source: io::Error) -> IdError {
        IdError::Claims {
            dir: self.dir.clone(),
            source,
        }
    }
}

fn read_claim(path: &Path) -> io::Result<Option<Claim>> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where to look first (FNV-1a): spread out, so that an id is not reused right after its owner.
fn spread(sandbox_id: &str) -> u32 {
    sandbox_id.bytes().fold(0x811C_9DC5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks() -> (tempfile::TempDir, IdBlocks) {
        let dir = tempfile::tempdir().unwrap();
        let blocks = IdBlocks::new(dir.path().join("ids"));
        (dir, blocks)
    }

    #[test]
    fn no_block_is_given_out_twice() {
        let (dir, blocks) = blocks();
        let other_driver = IdBlocks::new(blocks.dir());
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..50 {
            let from = if n % 2 == 0 { &blocks } else { &other_driver };
            let first = from.claim(&format!("sbx-{n}"), dir.path()).unwrap();
            assert_eq!(first % ID_BLOCK_SIZE, 0);
            assert!(seen.insert(first), "block {first:#x} twice");
            // The same id asked again is another sandbox's problem, not the same block.
            assert!(seen.insert(from.claim(&format!("sbx-{n}"), dir.path()).unwrap()));
        }
    }

    #[test]
    fn a_released_block_can_be_claimed_again_and_a_foreign_one_is_left() {
        let (dir, blocks) = blocks();
        let first = blocks.claim("sbx-a", dir.path()).unwrap();
        blocks.release(first, "sbx-b").unwrap();
        assert_ne!(blocks.claim("sbx-a", dir.path()).unwrap(), first);
        blocks.release(first, "sbx-a").unwrap();
        blocks.release(first, "sbx-a").unwrap();
        assert_eq!(blocks.claim("sbx-a", dir.path()).unwrap(), first);
    }

    #[test]
    fn the_claims_are_private_and_what_is_above_them_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let blocks = IdBlocks::new(dir.path().join("run/ids"));
        blocks.claim("sbx-a", dir.path()).unwrap();
        let mode = |name: &str| {
            let about = fs::metadata(dir.path().join(name)).unwrap();
            about.permissions().mode() & 0o777
        };
        assert_eq!((mode("run") & 0o111, mode("run/ids")), (0o111, 0o700));
    }

    #[test]
    fn a_claim_without_its_sandbox_is_void() {
        let (dir, blocks) = blocks();
        let first = blocks.claim("sbx-a", &dir.path().join("gone")).unwrap();
        assert_eq!(blocks.claim("sbx-a", dir.path()).unwrap(), first);
    }
}
