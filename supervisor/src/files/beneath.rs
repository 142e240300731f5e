//! Opening directories that are certainly below another one, whatever links there are and whoever
//! changes them meanwhile.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

/// The path's plain names; none if it is absolute or has a `..`.
pub(super) fn plain_names(path: &Path) -> Option<Vec<&OsStr>> {
    path.components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect()
}

/// Opens a directory below `root`, and makes what is missing of it. Symbolic links are followed only
/// as long as they stay below.
pub(super) fn directory(root: &OwnedFd, names: &[&OsStr], make: bool) -> Result<OwnedFd, Errno> {
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
    if names.is_empty() {
        return Ok(at);
    }
    let whole: std::path::PathBuf = names.iter().collect();
    match open(root, &whole) {
        Err(Errno::NOSYS | Errno::PERM) => {}
        Err(Errno::NOENT) if make => {
            for end in 1..=names.len() {
                let part: std::path::PathBuf = names[..end].iter().collect();
                at = match open(root, &part) {
                    Err(Errno::NOENT) => make_and_open(&at, names[end - 1])?,
                    result => result?,
                };
            }
            return Ok(at);
        }
        result => return result,
    }
    // Without openat2: one name after another, and no links at all.
    for name in names {
        at = match open_plain(&at, name) {
            Err(Errno::NOENT) if make => make_and_open(&at, name)?,
            result => result?,
        };
    }
    Ok(at)
}

fn open(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
}

fn make_and_open(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open_plain(parent, name),
        Err(errno) => Err(errno),
    }
}

fn open_plain(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("opened")
    }

    fn names(path: &str) -> Vec<&OsStr> {
        plain_names(Path::new(path)).expect("plain")
    }

    #[test]
    fn only_plain_names_pass() {
        assert_eq!(names("./a//b/."), ["a", "b"]);
        assert_eq!(plain_names(Path::new("a/../b")), None);
        assert_eq!(plain_names(Path::new("/a")), None);
    }

    #[test]
    fn missing_directories_are_made() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        directory(&root(temporary.path()), &names("a/b/c"), true).expect("made");
        assert!(temporary.path().join("a/b/c").is_dir());
        let missing = directory(&root(temporary.path()), &names("x"), false);
        assert_eq!(missing.err(), Some(Errno::NOENT));
    }

    #[test]
    fn a_link_that_leads_out_is_not_followed_and_one_that_stays_is() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let outside = tempfile::tempdir().expect("temporary directory");
        let inside = temporary.path().join("real");
        std::fs::create_dir(&inside).expect("made");
        symlink(outside.path(), temporary.path().join("out")).expect("linked");
        symlink("../..", inside.join("up")).expect("linked");
        symlink("real", temporary.path().join("in")).expect("linked");
        let root = root(temporary.path());
        assert!(directory(&root, &names("out/x"), true).is_err());
        assert!(directory(&root, &names("real/up/x"), true).is_err());
        directory(&root, &names("in/x"), true).expect("made");
        assert!(inside.join("x").is_dir());
        assert_eq!(
            std::fs::read_dir(outside.path()).expect("listed").count(),
            0
        );
    }
}
