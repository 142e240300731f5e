//! The supervisor that drivers put into sandboxes: where it is and exactly which one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio::time::timeout;

/// For `--version`, on a busy machine.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// A supervisor executable on this host, as drivers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorBinary {
    pub path: PathBuf,
    pub sha256: [u8; 32],
    /// Empty: it did not say.
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
        let read_error = |source| SupervisorBinaryError::Read {
            path: path.to_owned(),
            source,
        };
        let unfit = |problem: &str| SupervisorBinaryError::Unfit {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let real = tokio::fs::canonicalize(path).await.map_err(read_error)?;
        let metadata = tokio::fs::metadata(&real).await.map_err(read_error)?;
        if !metadata.is_file() {
            return Err(unfit("is not a file"));
        }
        if metadata.permissions().mode() & 0o111 == 0 {
            return Err(unfit("is not executable"));
        }
        let bytes = tokio::fs::read(&real).await.map_err(read_error)?;
        let architecture = architecture(&bytes).ok_or_else(|| {
            unfit("is not an ELF executable for a machine that is known here (x86_64, aarch64)")
        })?;
        let hashed = tokio::task::spawn_blocking(move || Sha256::digest(&bytes));
        let sha256 = hashed.await.map_err(|_| unfit("could not be hashed"))?;
        Ok(Self {
            version: version(&real).await,
            path: real,
            sha256: sha256.into(),
            architecture: architecture.to_owned(),
        })
    }
}

/// Of the ELF header: `e_machine` at 18, for the little-endian machines there are.
fn architecture(bytes: &[u8]) -> Option<&'static str> {
    let header = bytes.get(..20)?;
    let little_endian_64 = header.starts_with(b"\x7fELF\x02\x01");
    match u16::from_le_bytes([header[18], header[19]]) {
        62 if little_endian_64 => Some("x86_64"),
        183 if little_endian_64 => Some("aarch64"),
        _ => None,
    }
}

/// The last word of `--version`'s first line. A supervisor for another machine cannot say it.
async fn version(path: &Path) -> String {
    let mut command = Command::new(path);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(VERSION_DEADLINE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let word = text
                .lines()
                .next()
                .and_then(|line| line.split_whitespace().last());
            word.unwrap_or_default().chars().take(64).collect()
        }
        _ => {
            tracing::warn!(path = %path.display(), "the supervisor does not tell its version");
            String::new()
        }
    }
}
