//! tar → a local directory. Blocking.
//!
//! The archive is a sandbox's word, and a sandbox is not trusted: every name is walked component
//! by component from an open directory, no link is ever followed, and nothing gets special bits,
//! an owner, or the kind of a device.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags};
use tar::{Archive, Entry, EntryType};

use super::Copied;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// Files appear under this name first. One is enough: nobody else unpacks in between.
const TEMPORARY: &str = ".cofferdam-unpack";

/// Unpacks below a directory, which is made if it is missing.
pub(super) fn unpack(directory: &Path, input: impl Read) -> Result<Copied, UnpackError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| UnpackError { path, error }
    };
    let mut unpacker = Unpacker::new(directory).map_err(at(directory))?;
    let mut archive = Archive::new(input);
    for entry in archive.entries().map_err(at(directory))? {
        let mut entry = entry.map_err(at(directory))?;
        let name = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        unpacker.entry(&mut entry, &name).map_err(at(&name))?;
    }
    unpacker.finish().map_err(at(directory))
}

#[derive(Debug)]
pub(super) struct UnpackError {
    /// In the archive.
    pub(super) path: PathBuf,
    pub(super) error: io::Error,
}

struct Unpacker {
    root: OwnedFd,
    /// Modes of directories, set at the end: one of them may not be writable.
    modes: Vec<(Vec<PathBuf>, u32)>,
    copied: Copied,
}

impl Unpacker {
    fn new(directory: &Path) -> io::Result<Self> {
        match fs::mkdirat(CWD, directory, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Our caller's own path: it may well be a link.
        let root = fs::openat(
            CWD,
            directory,
            DIRECTORY.difference(OFlags::NOFOLLOW),
            Mode::empty(),
        )?;
        Ok(Self {
            root,
            modes: Vec::new(),
            copied: Copied {
                entries: Some(0),
                ..Copied::default()
            },
        })
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, name: &Path) -> io::Result<()> {
        let parts = parts(name)?;
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory => {
                self.walk(&parts)?;
                if !parts.is_empty() {
                    self.modes.push((parts, mode));
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let (parent, name) = self.place(&parts)?;
                self.copied.bytes += write_file(parent.as_fd(), name, entry, mode)?;
            }
            EntryType::Symlink => {
                let target = link_target(entry)?;
                let (parent, name) = self.place(&parts)?;
                replace(parent.as_fd(), name)?;
                fs::symlinkat(target, &parent, name)?;
            }
            EntryType::Link => {
                let target = parts_of(&link_target(entry)?)?;
                let (from, from_name) = self.place(&target)?;
                let (parent, name) = self.place(&parts)?;
                replace(parent.as_fd(), name)?;
                fs::linkat(&from, from_name, &parent, name, AtFlags::empty())?;
            }
            // Names and attributes of the next entry, which the reader has applied.
            EntryType::XGlobalHeader | EntryType::XHeader => return Ok(()),
            _ => {
                self.copied.skipped += 1;
                return Ok(());
            }
        }
        self.copied.entries = self.copied.entries.map(|entries| entries + 1);
        Ok(())
    }

    /// The directory at a path, made where it is missing.
    fn walk(&self, parts: &[PathBuf]) -> io::Result<OwnedFd> {
        let mut directory = self.root.try_clone()?;
        for part in parts {
            match fs::mkdirat(&directory, part, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            directory = fs::openat(&directory, part, DIRECTORY, Mode::empty())?;
        }
        Ok(directory)
    }

    /// The directory that an entry goes into, and its name there.
    fn place<'a>(&self, parts: &'a [PathBuf]) -> io::Result<(OwnedFd, &'a Path)> {
        let (name, parents) = parts
            .split_last()
            .ok_or_else(|| io::Error::other("it has no name"))?;
        Ok((self.walk(parents)?, name))
    }

    fn finish(self) -> io::Result<Copied> {
        // Inner ones first: after its own mode is set, a directory may not be entered any more.
        for (parts, mode) in self.modes.iter().rev() {
            let directory = self.walk(parts)?;
            fs::fchmod(&directory, Mode::from_raw_mode(*mode))?;
        }
        Ok(self.copied)
    }
}

/// Under a temporary name first, so that a file is whole or not there.
fn write_file<R: Read>(
    parent: BorrowedFd<'_>,
    name: &Path,
    entry: &mut Entry<'_, R>,
    mode: u32,
) -> io::Result<u64> {
    replace(parent, Path::new(TEMPORARY))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(fs::openat(
        parent,
        TEMPORARY,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    let length = entry.size();
    let written = io::copy(entry, &mut file).and_then(|written| {
        if written != length {
            return Err(io::Error::other("the archive ends within it"));
        }
        fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        if let Ok(seconds) = entry.header().mtime() {
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))?;
        }
        fs::renameat(parent, TEMPORARY, parent, name)?;
        Ok(written)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = replace(parent, Path::new(TEMPORARY));
    }
    written
}

/// Makes room for an entry. A directory in its place is not removed: that is an error then.
fn replace(parent: BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn link_target<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let target = entry
        .link_name_bytes()
        .ok_or_else(|| io::Error::other("it is a link to nothing"))?;
    Ok(PathBuf::from(OsStr::from_bytes(&target)))
}

fn parts_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    parts(path)
}

/// The components of a name that stays below the directory.
fn parts(name: &Path) -> io::Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => parts.push(PathBuf::from(part)),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other("its name leads out of the directory"));
            }
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, Header};

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o6755);
            header.set_mtime(1_000_000);
            // Written as bytes: the crate refuses to make such names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let data = if kind.is_file() {
                content.as_bytes()
            } else {
                b""
            };
            if !kind.is_file() {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn refused(entries: &[(&str, EntryType, &str)]) -> String {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        let error = unpack(&inner, &*archive(entries)).unwrap_err();
        let left: Vec<_> = std::fs::read_dir(outer.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "something landed outside: {left:?}");
        error.error.to_string()
    }

    #[test]
    fn nothing_lands_outside() {
        use EntryType::{Link, Regular, Symlink};
        for name in ["../x", "/x", "a/../../x"] {
            assert_eq!(
                refused(&[(name, Regular, "evil")]),
                "its name leads out of the directory"
            );
        }
        refused(&[("out", Symlink, ".."), ("out/x", Regular, "evil")]);
        refused(&[("d/out", Symlink, "/tmp"), ("d/out/x", Regular, "evil")]);
        refused(&[("x", Link, "../../etc/passwd")]);
        refused(&[("out", Symlink, "/etc"), ("x", Link, "out/passwd")]);
    }

    #[test]
    fn a_file_replaces_a_link_instead_of_writing_through_it() {
        let outer = tempfile::tempdir().unwrap();
        let target = outer.path().join("target");
        std::fs::write(&target, "mine").unwrap();
        let inner = outer.path().join("inner");
        let entries = [
            ("x", EntryType::Symlink, target.to_str().unwrap()),
            ("x", EntryType::Regular, "theirs"),
        ];
        unpack(&inner, &*archive(&entries)).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "mine");
        assert_eq!(std::fs::read_to_string(inner.join("x")).unwrap(), "theirs");
    }

    #[test]
    fn special_bits_and_devices_are_left_out() {
        use std::os::unix::fs::MetadataExt as _;
        let outer = tempfile::tempdir().unwrap();
        let entries = [
            ("./", EntryType::Directory, ""),
            ("suid", EntryType::Regular, "x"),
            ("null", EntryType::Char, ""),
            ("pipe", EntryType::Fifo, ""),
        ];
        let copied = unpack(&outer.path().join("inner"), &*archive(&entries)).unwrap();
        assert_eq!(
            (copied.entries, copied.skipped, copied.bytes),
            (Some(2), 2, 1)
        );
        let metadata = std::fs::metadata(outer.path().join("inner/suid")).unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o755);
        assert_eq!(metadata.mtime(), 1_000_000);
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let whole = archive(&[("a", EntryType::Regular, "0123456789")]);
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        assert!(unpack(&inner, &whole[..515]).is_err());
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 0);
    }

    #[test]
    fn what_is_packed_comes_out_the_same() {
        let outer = tempfile::tempdir().unwrap();
        let from = outer.path().join("from");
        let long = "n".repeat(200);
        std::fs::create_dir_all(from.join("d/e")).unwrap();
        std::fs::write(from.join("d/e").join(&long), vec![7; 100_000]).unwrap();
        std::fs::write(from.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("d/e", from.join("link")).unwrap();
        let mut packed = Vec::new();
        let copied = super::super::pack::pack(&from, &mut packed).unwrap();
        assert_eq!((copied.entries, copied.bytes), (Some(6), 100_000));
        let to = outer.path().join("to");
        let copied = unpack(&to, &*packed).unwrap();
        assert_eq!((copied.entries, copied.bytes), (Some(6), 100_000));
        assert_eq!(
            std::fs::read(to.join("link").join(&long)).unwrap(),
            vec![7; 100_000]
        );
        assert_eq!(
            std::fs::read_link(to.join("link")).unwrap(),
            Path::new("d/e")
        );
    }
}
