//! One gateway per directory: of its records, and of its sockets.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The state directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "another gateway{} uses {}; stop it, or choose another {setting}",
        pid_hint(.pid),
        directory.display()
    )]
    Taken {
        directory: PathBuf,
        /// The setting that names the directory.
        setting: &'static str,
        /// Of the other one, if it is known.
        pid: Option<u32>,
    },
    #[error(
        "cannot use {} as {setting}; `cofferdam-gateway config show --effective` says where that \
         comes from", directory.display()
    )]
    Io {
        directory: PathBuf,
        setting: &'static str,
        #[source]
        source: std::io::Error,
    },
}

fn pid_hint(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// Held as long as it exists; the kernel lets go of it whatever happens to the process.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the directory, making it with this mode if it is not there.
    pub fn take(directory: &Path, mode: u32, setting: &'static str) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let failed = |source| LockError::Io {
            directory: directory.to_owned(),
            setting,
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(mode);
        builder.create(directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // The number is for people only.
                let _ = file.read_to_string(&mut text);
                return Err(LockError::Taken {
                    directory: directory.to_owned(),
                    setting,
                    pid: text.trim().parse().ok(),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_cannot_be_used_is_named_with_its_setting() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        let directory = file.join("cofferdam");
        let error = DirectoryLock::take(&directory, 0o755, "runtime_dir").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&format!("{} as runtime_dir", directory.display())),
            "{text}"
        );
    }

    #[test]
    fn a_second_gateway_is_told_who_has_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("state");
        let first = DirectoryLock::take(&directory, 0o700, "state_dir").unwrap();
        let error = DirectoryLock::take(&directory, 0o700, "state_dir").unwrap_err();
        let text = error.to_string();
        let pid = std::process::id();
        assert!(text.contains(&format!("(pid {pid})")), "{text}");
        assert!(text.contains("state_dir"), "{text}");
        drop(first);
        DirectoryLock::take(&directory, 0o700, "state_dir").unwrap();
    }
}
