//! Reading and writing control files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::CgroupError;

pub(super) const PROCS: &str = "cgroup.procs";

/// One write is one command to the kernel.
pub(super) fn write(dir: &Path, name: &str, text: &str) -> Result<(), CgroupError> {
    write_to(&dir.join(name), text)
}

/// The same for a whole path.
pub(super) fn write_to(path: &Path, text: &str) -> Result<(), CgroupError> {
    let attempt = || {
        OpenOptions::new()
            .write(true)
            .open(path)?
            .write_all(text.as_bytes())
    };
    attempt().map_err(|source| CgroupError {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// The file's text, without the last newline; `None` when it is not there.
pub(super) fn read(dir: &Path, name: &str) -> Option<String> {
    fs::read_to_string(dir.join(name))
        .ok()
        .map(|text| text.trim_end().to_owned())
}

/// A file that holds one number.
pub(super) fn number(dir: &Path, name: &str) -> Option<u64> {
    read(dir, name)?.parse().ok()
}

/// One line `key number` of many.
pub(super) fn keyed(dir: &Path, name: &str, key: &str) -> Option<u64> {
    let text = read(dir, name)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// The processes in a cgroup itself, without its children.
pub(super) fn pids(dir: &Path) -> Vec<i32> {
    read(dir, PROCS).map_or_else(Vec::new, |text| {
        text.lines()
            .filter_map(|line| line.parse().ok())
            .filter(|&pid| pid > 0)
            .collect()
    })
}

/// Makes a cgroup; one that exists is as good.
pub(super) fn make(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(CgroupError {
            action: "create cgroup",
            path: dir.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// Removes a cgroup and those below it; false when it is still in use.
pub(super) fn try_remove(dir: &Path) -> Result<bool, CgroupError> {
    for child in fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) && !try_remove(&child.path())? {
            return Ok(false);
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(source) => Err(CgroupError {
            action: "remove cgroup",
            path: dir.to_owned(),
            source,
        }),
    }
}

/// Whether this process may make cgroups below `dir`.
pub(super) fn writable(dir: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    accessat(CWD, dir, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
        && accessat(CWD, dir.join(PROCS), Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}
