//! From a caller's path to a descriptor.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use super::error::FileError;

/// The directory below which relative paths are.
#[derive(Clone, Debug)]
pub(crate) struct Workspace(PathBuf);

/// A name in a directory that is open; what may be made, replaced or removed.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) parent: OwnedFd,
    pub(super) name: OsString,
    /// For messages.
    pub(super) path: PathBuf,
}

impl Workspace {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The path that a caller means.
    pub(crate) fn path(&self, path: &str) -> Result<PathBuf, FileError> {
        let problem = match path {
            "" => "a path cannot be empty",
            path if path.contains('\0') => "a path cannot hold a zero byte",
            _ => return Ok(self.0.join(path)),
        };
        Err(FileError::Path {
            path: path.into(),
            problem,
        })
    }

    /// The parent's descriptor, and the last name.
    pub(super) fn place(&self, path: &str) -> Result<Place, FileError> {
        let path = self.path(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            let path = path.to_string_lossy().into_owned();
            return Err(FileError::Path {
                path,
                problem: "needs a name at its end",
            });
        };
        let name = name.to_owned();
        let parent = open_path(parent, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(FileError::system("open the directory", parent))?;
        Ok(Place { parent, name, path })
    }

    /// As [`Self::place`], and makes the directories that are missing.
    pub(super) fn place_with_parents(&self, path: &str) -> Result<Place, FileError> {
        if let Some(parent) = self.path(path)?.parent() {
            make_directories(parent)?;
        }
        self.place(path)
    }
}

/// Opens a path, though not by way of a magic link of `/proc`, behind which are descriptors of the
/// supervisor.
pub(super) fn open_path(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        // An old kernel, or an old engine's filter. Nothing but the well-known names is left then.
        Err(Errno::NOSYS | Errno::PERM) if !names_own_process(path) => {
            open(path, flags, Mode::empty())
        }
        result => result,
    }
}

fn names_own_process(path: &Path) -> bool {
    let own = std::process::id().to_string();
    path.components().any(|component| {
        let name = component.as_os_str();
        name == "self" || name == "thread-self" || name == OsStr::new(&own)
    })
}

/// `mkdir -p`.
pub(super) fn make_directories(path: &Path) -> Result<(), FileError> {
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in path.ancestors() {
        match open_path(ancestor, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(mut parent) => {
                for path in missing.into_iter().rev() {
                    let name = path.file_name().unwrap_or(OsStr::new(".."));
                    parent = make_and_open(&parent, name)
                        .map_err(FileError::system("make the directory", path))?;
                }
                return Ok(());
            }
            Err(Errno::NOENT) => missing.push(ancestor),
            Err(errno) => return Err(FileError::system("open the directory", ancestor)(errno)),
        }
    }
    Err(FileError::system("open the directory", path)(Errno::NOENT))
}

fn make_and_open(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// A path by which a Unix socket can be connected to without passing through magic links of the
/// caller's choosing, and the descriptor that keeps it valid.
pub(crate) fn connectable(
    workspace: &Workspace,
    path: &str,
) -> Result<(OwnedFd, PathBuf), FileError> {
    let place = workspace.place(path)?;
    let directory = Path::new("/proc/self/fd").join(place.parent.as_raw_fd().to_string());
    let path = directory.join(&place.name);
    Ok((place.parent, path))
}

/// For messages and listings.
pub(super) fn printable(name: &[u8]) -> String {
    OsStr::from_bytes(name).to_string_lossy().into_owned()
}
