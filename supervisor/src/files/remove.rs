//! Removing files and whole trees, never through a symbolic link.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::error::FileError;
use super::path::Workspace;

/// Removes a file, an empty directory, or with `recursive` a whole tree.
pub(crate) fn remove(workspace: &Workspace, path: &str, recursive: bool) -> Result<(), FileError> {
    let place = workspace.place(path)?;
    let failed = FileError::system("remove", &place.path);
    match unlinkat(&place.parent, &place.name, AtFlags::empty()) {
        // Linux says EISDIR; what POSIX says instead is EPERM, which could mean anything else too.
        Err(Errno::ISDIR) => {}
        result => return result.map_err(failed),
    }
    if recursive {
        let directory = open_directory(&place.parent, &place.name).map_err(&failed)?;
        empty(directory).map_err(&failed)?;
    }
    unlinkat(&place.parent, &place.name, AtFlags::REMOVEDIR).map_err(failed)
}

/// Removes all that is in a directory, depth first, without recursion of ours.
fn empty(directory: OwnedFd) -> Result<(), Errno> {
    // Each level: its descriptor, and the name that it has in the level above.
    let mut levels: Vec<(OwnedFd, Option<CString>)> = vec![(directory, None)];
    while let Some((level, _)) = levels.last() {
        match first_directory(level)? {
            Some(name) => {
                let below = open_directory(level, &name)?;
                levels.push((below, Some(name)));
            }
            None => {
                let name = levels.pop().and_then(|(_, name)| name);
                if let (Some(name), Some((above, _))) = (name, levels.last()) {
                    unlinkat(above, name.as_c_str(), AtFlags::REMOVEDIR)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes everything but directories, and returns the first of those.
fn first_directory(level: &OwnedFd) -> Result<Option<CString>, Errno> {
    for entry in Dir::read_from(level)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match unlinkat(level, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Ok(Some(name.to_owned())),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

fn open_directory(parent: &OwnedFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
