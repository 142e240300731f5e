//! The private directory of an embedded gateway: whose it is, whether that one lives, and with
//! which drivers its sandboxes were made.
//!
//! ```text
//!  .cofferdam-<random>/   being made: nobody looks at it
//!     │ lock is held, options.json is written
//!     ▼ rename
//!  cofferdam-<random>/    a gateway's, which lives as long as its lock is held
//! ```

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{EmbedError, EmbedOptions};
use crate::config::Host;

const PREFIX: &str = "cofferdam-";
const RANDOM_BYTES: usize = 6;
const LOCK: &str = "lock";
const OPTIONS: &str = "options.json";

/// Gone with everything in it when it is dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct PrivateDirectory {
    path: PathBuf,
    /// The kernel lets go of it whatever happens to the process.
    _lock: File,
    is_kept: bool,
}

/// What it takes to start the same gateway again.
#[derive(Debug, Serialize, Deserialize)]
struct StoredOptions {
    drivers: Vec<String>,
    /// Paths as bytes: they need not be text.
    driver_sockets: Vec<(String, Vec<u8>)>,
    default_driver: Option<String>,
}

/// The user's runtime directory, and /tmp: the paths of sockets have to be short.
fn bases(host: &Host) -> impl Iterator<Item = PathBuf> {
    let runtime = host.environment.get("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute() && path.as_os_str().len() < 60);
    let tmp = PathBuf::from("/tmp");
    let runtime = runtime.filter(|path| *path != tmp);
    runtime.into_iter().chain([tmp])
}

impl PrivateDirectory {
    /// In the first place where that is possible.
    pub(super) fn create(host: &Host, options: &EmbedOptions) -> Result<Self, EmbedError> {
        let mut last = None;
        for base in bases(host) {
            match make_in(&base, options) {
                Ok(directory) => return Ok(directory),
                Err(source) => last = Some(EmbedError::Directory { base, source }),
            }
        }
        Err(last.unwrap_or_else(|| EmbedError::Directory {
            base: PathBuf::from("/tmp"),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    /// Those of this user's gateways that died without removing them; each is ours from now on.
    pub(super) fn of_the_dead(host: &Host) -> Vec<Self> {
        let entries = bases(host).flat_map(|base| std::fs::read_dir(base).into_iter().flatten());
        entries
            .flatten()
            .filter(|entry| is_a_name(entry.file_name().as_bytes()))
            .filter_map(|entry| take_over(entry.path(), host.uid))
            .collect()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What its gateway was started with; where the programs are is for the new one to say.
    pub(super) fn options(&self, libexec_dir: &Path) -> io::Result<EmbedOptions> {
        let text = std::fs::read(self.path.join(OPTIONS))?;
        let stored: StoredOptions = serde_json::from_slice(&text)?;
        let sockets = stored.driver_sockets.into_iter();
        Ok(EmbedOptions {
            libexec_dir: libexec_dir.to_owned(),
            drivers: stored.drivers,
            driver_sockets: sockets
                .map(|(name, path)| (name, OsString::from_vec(path).into()))
                .collect(),
            default_driver: stored.default_driver,
        })
    }

    /// Leaves it to those who come later.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a directory was left behind");
        }
    }
}

fn make_in(base: &Path, options: &EmbedOptions) -> io::Result<PrivateDirectory> {
    let random = hex::encode(rand::random::<[u8; RANDOM_BYTES]>());
    let unfinished = base.join(format!(".{PREFIX}{random}"));
    // Not recursive: a directory of that name that is there already is somebody else's.
    DirBuilder::new().mode(0o700).create(&unfinished)?;
    let mut directory = match lock_in(&unfinished, true) {
        Ok(lock) => PrivateDirectory {
            path: unfinished,
            _lock: lock,
            is_kept: false,
        },
        Err(error) => {
            std::fs::remove_dir_all(&unfinished)?;
            return Err(error);
        }
    };
    let sockets = options.driver_sockets.iter();
    let stored = StoredOptions {
        drivers: options.drivers.clone(),
        driver_sockets: sockets
            .map(|(name, path)| (name.clone(), path.as_os_str().as_bytes().to_vec()))
            .collect(),
        default_driver: options.default_driver.clone(),
    };
    std::fs::write(directory.path.join(OPTIONS), serde_json::to_vec(&stored)?)?;
    let finished = base.join(format!("{PREFIX}{random}"));
    // One that is there and not empty is not replaced.
    std::fs::rename(&directory.path, &finished)?;
    directory.path = finished;
    Ok(directory)
}

fn is_a_name(name: &[u8]) -> bool {
    let random = name.strip_prefix(PREFIX.as_bytes());
    random.is_some_and(|text| {
        text.len() == RANDOM_BYTES * 2 && text.iter().all(u8::is_ascii_hexdigit)
    })
}

fn lock_in(directory: &Path, is_new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create_new(is_new)
        .mode(0o600);
    let file = options.open(directory.join(LOCK))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Nothing, if it is another user's, its gateway lives, or somebody else has just cleared it.
fn take_over(path: PathBuf, uid: u32) -> Option<PrivateDirectory> {
    let about = std::fs::symlink_metadata(&path).ok()?;
    if !about.is_dir() || about.uid() != uid || about.mode() & 0o077 != 0 {
        return None;
    }
    let lock = lock_in(&path, false).ok()?;
    let here = std::fs::metadata(path.join(LOCK)).ok()?;
    let held = lock.metadata().ok()?;
    (here.dev() == held.dev() && here.ino() == held.ino()).then_some(PrivateDirectory {
        path,
        _lock: lock,
        is_kept: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(runtime: Option<&Path>) -> Host {
        let mut host = Host::here();
        host.environment.remove("XDG_RUNTIME_DIR");
        if let Some(runtime) = runtime {
            host.environment
                .insert("XDG_RUNTIME_DIR".to_owned(), runtime.into());
        }
        host
    }

    fn create(host: &Host) -> PrivateDirectory {
        PrivateDirectory::create(host, &EmbedOptions::default()).unwrap()
    }

    /// Of this base alone: the machine's /tmp is everybody's.
    fn dead_in(base: &Path) -> Vec<PathBuf> {
        let host = host(Some(base));
        let entries = std::fs::read_dir(base).unwrap().flatten();
        entries
            .filter(|entry| is_a_name(entry.file_name().as_bytes()))
            .filter_map(|entry| take_over(entry.path(), host.uid))
            .map(|directory| {
                let path = directory.path.clone();
                directory.keep();
                path
            })
            .collect()
    }

    #[test]
    fn the_directory_is_private_short_and_gone_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let directory = create(&host(Some(home.path())));
        let path = directory.path.clone();
        assert!(path.starts_with(home.path()));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        std::fs::write(path.join("file"), b"x").unwrap();
        drop(directory);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_usable_runtime_directory_it_is_in_tmp() {
        let missing = host(Some(Path::new("/not/there")));
        for host in [host(None), missing] {
            let directory = create(&host);
            assert!(directory.path.starts_with("/tmp"));
        }
    }

    #[test]
    fn who_holds_the_lock_lives_and_who_does_not_is_dead() {
        let home = tempfile::tempdir().unwrap();
        let options = EmbedOptions {
            drivers: vec!["one".to_owned()],
            driver_sockets: vec![(
                "two".to_owned(),
                OsString::from_vec(vec![b'/', 0xff]).into(),
            )],
            default_driver: Some("two".to_owned()),
            ..EmbedOptions::default()
        };
        let host = host(Some(home.path()));
        let directory = PrivateDirectory::create(&host, &options).unwrap();
        let path = directory.path.clone();
        assert!(dead_in(home.path()).is_empty());
        // As a kill does: the lock is let go of, and the directory stays.
        directory.keep();
        assert_eq!(dead_in(home.path()), std::slice::from_ref(&path));
        let again = take_over(path, host.uid).unwrap();
        let read = again.options(Path::new("/libexec")).unwrap();
        assert_eq!(read.drivers, options.drivers);
        assert_eq!(read.driver_sockets, options.driver_sockets);
        assert_eq!(read.default_driver, options.default_driver);
        assert_eq!(read.libexec_dir, Path::new("/libexec"));
    }

    #[test]
    fn what_may_be_somebody_elses_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32, lock: bool| {
            let path = home.path().join(name);
            DirBuilder::new().mode(mode).create(&path).unwrap();
            if lock {
                std::fs::write(path.join(LOCK), "").unwrap();
            }
            path
        };
        make("cofferdam-0123456789", 0o700, true);
        make("cofferdam-0123456789ag", 0o700, true);
        make(".cofferdam-0123456789ab", 0o700, true);
        make("cofferdam-00000000000a", 0o755, true);
        make("cofferdam-00000000000b", 0o700, false);
        let good = make("cofferdam-00000000000c", 0o700, true);
        std::os::unix::fs::symlink(&good, home.path().join("cofferdam-00000000000d")).unwrap();
        assert_eq!(dead_in(home.path()), std::slice::from_ref(&good));
        let somebody_else = Host::here().uid + 1;
        assert!(take_over(good, somebody_else).is_none());
    }
}
