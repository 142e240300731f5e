//! A tar stream as files below a directory, and never anywhere else.
//!
//! Each entry's parent is opened below the root by the kernel's own rules (see
//! [`super::super::beneath`]), so that neither `..` nor absolute names nor symbolic links, whether
//! from the archive or already there, lead out.
//!
//! An entry takes its place when it is whole: an archive that is cut, or for which there is no
//! space, leaves each file that it was to replace either as it was or entirely new.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, linkat, mkdirat,
    openat, symlinkat,
};
use rustix::io::Errno;
use tar::{Entry, EntryType};

use super::draft::Draft;
use crate::files::beneath::{directory, plain_names};
use crate::files::error::FileError;
use crate::files::path::{Workspace, open_path};

const PIECE_BYTES: usize = 128 * 1024;
/// Modes that would lock ourselves out are set at the end, and held until then; an archive with more
/// of them is refused.
const LATE_MODES_MAX: usize = 100_000;

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Unpacks below a directory, which is made if its parent is there.
pub(crate) fn unpack(
    workspace: &Workspace,
    path: &str,
    input: impl Read,
) -> Result<Unpacked, FileError> {
    let full = workspace.path(path)?;
    let failed = FileError::system("unpack into", &full);
    let root = match open_path(&full, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {
            let place = workspace.place(path)?;
            let mode = Mode::from_raw_mode(0o755);
            mkdirat(&place.parent, &place.name, mode).map_err(&failed)?;
            open_path(&full, OFlags::PATH | OFlags::DIRECTORY).map_err(&failed)?
        }
        result => result.map_err(&failed)?,
    };
    let mut unpacker = Unpacker {
        root,
        late_modes: Vec::new(),
        done: Unpacked::default(),
    };
    let mut archive = tar::Archive::new(Watched {
        input,
        at_end: false,
    });
    for entry in archive.entries().map_err(damaged)? {
        unpacker.entry(entry.map_err(damaged)?)?;
    }
    let mut input = archive.into_inner();
    if input.at_end {
        return Err(FileError::Archive("it has no end".into()));
    }
    // What follows the end is padding. The sender is heard out, for it may still fail.
    io::copy(&mut input, &mut io::sink()).map_err(damaged)?;
    unpacker.set_late_modes()?;
    Ok(unpacker.done)
}

/// Notices when the input is at its end, which it must not be before the archive is.
struct Watched<R> {
    input: R,
    at_end: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.at_end |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

fn damaged(error: io::Error) -> FileError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return FileError::Stream;
    }
    FileError::Archive(error.to_string())
}

struct Unpacker {
    root: OwnedFd,
    late_modes: Vec<(PathBuf, u32)>,
    done: Unpacked,
}

/// Where an entry goes.
struct Target {
    parent: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Unpacker {
    fn entry(&mut self, entry: Entry<'_, impl Read>) -> Result<(), FileError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let Some(target) = self.target(&path)? else {
            // The root itself, which is there.
            return Ok(());
        };
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &target)?;
            }
            EntryType::Directory => self.directory(&entry, &target)?,
            EntryType::Symlink => {
                let link = link_of(&entry, &path)?;
                let draft = Draft::new(target.parent.as_fd());
                symlinkat(&link, &target.parent, draft.name())
                    .map_err(FileError::system("link", &path))?;
                target.replace_with(draft)?;
            }
            EntryType::Link => self.hard_link(&link_of(&entry, &path)?, &target)?,
            _ => return Err(refused(&path, "is a device, a pipe or of an unknown kind")),
        }
        self.done.entries += 1;
        Ok(())
    }

    fn target(&self, path: &Path) -> Result<Option<Target>, FileError> {
        let outside = || refused(path, "is not below the directory");
        let names = plain_names(path).ok_or_else(outside)?;
        let Some((name, parents)) = names.split_last() else {
            return Ok(None);
        };
        let parent =
            directory(&self.root, parents, true).map_err(|errno| outside_or(path, errno))?;
        Ok(Some(Target {
            parent,
            name: (*name).to_owned(),
            path: path.to_owned(),
        }))
    }

    fn file(&mut self, mut entry: Entry<'_, impl Read>, target: &Target) -> Result<(), FileError> {
        let failed = FileError::system("write", &target.path);
        let draft = Draft::new(target.parent.as_fd());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = flags | OFlags::CLOEXEC;
        let private = Mode::from_raw_mode(0o600);
        let file = openat(&target.parent, draft.name(), flags, private).map_err(&failed)?;
        let mut file = File::from(file);
        let mut buffer = vec![0; PIECE_BYTES];
        let mut missing = entry.size();
        loop {
            match entry.read(&mut buffer).map_err(damaged)? {
                0 if missing == 0 => break,
                // The input is at its end, which is not an error to the parser.
                0 => return Err(FileError::Archive("it ends within an entry".into())),
                count => {
                    let written = file.write_all(&buffer[..count]);
                    written.map_err(FileError::io("write", &target.path))?;
                    self.done.bytes += count as u64;
                    missing = missing.saturating_sub(count as u64);
                }
            }
        }
        fchmod(&file, Mode::from_raw_mode(mode_of(&entry)?)).map_err(&failed)?;
        let time = i64::try_from(entry.header().mtime().map_err(damaged)?).unwrap_or(0);
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: time,
                tv_nsec: 0,
            },
        };
        futimens(&file, &times).map_err(&failed)?;
        target.replace_with(draft)
    }

    fn directory(
        &mut self,
        entry: &Entry<'_, impl Read>,
        target: &Target,
    ) -> Result<(), FileError> {
        let failed = FileError::system("make the directory", &target.path);
        match mkdirat(&target.parent, &target.name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            // What is there stays as it is, if it is a directory (or leads to one below the root).
            Err(Errno::EXIST) => {
                let names = plain_names(&target.path).unwrap_or_default();
                directory(&self.root, &names, false)
                    .map_err(|errno| outside_or(&target.path, errno))?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        let mode = mode_of(entry)?;
        if mode != 0o755 {
            if self.late_modes.len() == LATE_MODES_MAX {
                let problem = "is one directory too many whose mode is not 0755 (at most 100000)";
                return Err(refused(&target.path, problem));
            }
            self.late_modes.push((target.path.clone(), mode));
        }
        Ok(())
    }

    fn hard_link(&self, link: &Path, target: &Target) -> Result<(), FileError> {
        let outside = || refused(&target.path, "links to something outside of the directory");
        let names = plain_names(link).ok_or_else(outside)?;
        let (name, parents) = names.split_last().ok_or_else(outside)?;
        let source = directory(&self.root, parents, false)
            .map_err(|errno| outside_or(&target.path, errno))?;
        let draft = Draft::new(target.parent.as_fd());
        let (parent, flags) = (&target.parent, AtFlags::empty());
        linkat(&source, *name, parent, draft.name(), flags)
            .map_err(FileError::system("link", &target.path))?;
        target.replace_with(draft)
    }

    /// Deepest first, since a mode may forbid going deeper.
    fn set_late_modes(&mut self) -> Result<(), FileError> {
        while let Some((path, mode)) = self.late_modes.pop() {
            let names = plain_names(&path).unwrap_or_default();
            let failed = FileError::system("set the mode of", &path);
            let below = directory(&self.root, &names, false).map_err(&failed)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let below = openat(below, ".", flags, Mode::empty()).map_err(&failed)?;
            fchmod(below, Mode::from_raw_mode(mode)).map_err(&failed)?;
        }
        Ok(())
    }
}

impl Target {
    /// Unless a directory is there.
    fn replace_with(&self, draft: Draft<'_>) -> Result<(), FileError> {
        draft
            .put_in_place(&self.name)
            .map_err(FileError::system("replace", &self.path))
    }
}

/// Neither set-user-id nor set-group-id.
fn mode_of(entry: &Entry<'_, impl Read>) -> Result<u32, FileError> {
    Ok(entry.header().mode().map_err(damaged)? & 0o1777)
}

fn link_of(entry: &Entry<'_, impl Read>, path: &Path) -> Result<PathBuf, FileError> {
    match entry.link_name_bytes() {
        Some(link) if !link.is_empty() => Ok(PathBuf::from(OsStr::from_bytes(&link))),
        _ => Err(refused(path, "is a link to nothing")),
    }
}

fn refused(path: &Path, problem: &'static str) -> FileError {
    FileError::Entry {
        path: path.to_string_lossy().into_owned(),
        problem,
    }
}

/// The kernel's words for "this link leads out".
fn outside_or(path: &Path, errno: Errno) -> FileError {
    match errno {
        Errno::XDEV | Errno::LOOP => refused(path, "leads out of the directory by a symbolic link"),
        errno => FileError::system("unpack", path)(errno),
    }
}
