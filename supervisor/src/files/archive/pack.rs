//! A file or a tree as a tar stream. Symbolic links are stored as links; devices, pipes and sockets
//! are counted and left out.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use tar::EntryType;

use super::pax::{Entry, write_end, write_header, write_padding};
use crate::files::error::FileError;
use crate::files::path::{Workspace, open_path, printable};

const PIECE_BYTES: usize = 128 * 1024;

/// Writes the archive of what the path leads to. Names are relative to a directory itself; a single
/// file has its own name. Returns how many entries are left out.
pub(crate) fn pack(
    workspace: &Workspace,
    path: &str,
    out: &mut impl Write,
) -> Result<u64, FileError> {
    let full = workspace.path(path)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let failed = FileError::system("archive", &full);
    let file = open_path(&full, flags).map_err(&failed)?;
    let stat = fstat(&file).map_err(&failed)?;
    let mut packer = Packer {
        out,
        root: &full,
        skipped: 0,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            packer.header(b"./", EntryType::Directory, &stat, 0, b"")?;
            packer.tree(file)?;
        }
        FileType::RegularFile => {
            let name = full.file_name().unwrap_or_default();
            packer.contents(name.as_bytes(), &file, &stat)?;
        }
        _ => {
            let path = full.to_string_lossy().into_owned();
            return Err(FileError::Kind {
                path,
                expected: "a file or a directory",
            });
        }
    }
    write_end(packer.out)
        .and_then(|()| packer.out.flush())
        .map_err(|_| FileError::Stream)?;
    Ok(packer.skipped)
}

struct Packer<'a, W> {
    out: &'a mut W,
    root: &'a Path,
    skipped: u64,
}

/// A directory that is being read, and its path below the root, ending with a slash.
struct Level {
    directory: OwnedFd,
    entries: Dir,
    path: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    /// Depth first, with as many open directories as the tree is deep.
    fn tree(&mut self, root: OwnedFd) -> Result<(), FileError> {
        let mut levels = vec![self.level(root, Vec::new())?];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.entries.read() else {
                levels.pop();
                continue;
            };
            let entry = entry.map_err(FileError::system("list", self.root))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let path = [level.path.as_slice(), name.to_bytes()].concat();
            match self.entry(&level.directory, name.to_owned(), &path) {
                Ok(Some(below)) => {
                    let path = [path.as_slice(), b"/"].concat();
                    let below = self.level(below, path)?;
                    levels.push(below);
                }
                // Removed since it was seen.
                Ok(None)
                | Err(FileError::System {
                    errno: Errno::NOENT,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn level(&self, directory: OwnedFd, path: Vec<u8>) -> Result<Level, FileError> {
        let failed = self.failed("list", &path);
        let entries = Dir::read_from(&directory).map_err(failed)?;
        Ok(Level {
            directory,
            entries,
            path,
        })
    }

    /// Writes one entry. A directory is returned open, to be gone into.
    fn entry(
        &mut self,
        parent: &OwnedFd,
        name: CString,
        path: &[u8],
    ) -> Result<Option<OwnedFd>, FileError> {
        let failed = self.failed("archive", path);
        let stat = statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY;
                let below = openat(parent, &name, flags, Mode::empty()).map_err(&failed)?;
                let path = [path, b"/"].concat();
                self.header(&path, EntryType::Directory, &stat, 0, b"")?;
                return Ok(Some(below));
            }
            FileType::Symlink => {
                let target = readlinkat(parent, &name, Vec::new()).map_err(&failed)?;
                self.header(path, EntryType::Symlink, &stat, 0, target.as_bytes())?;
            }
            FileType::RegularFile => {
                let file = openat(parent, &name, flags, Mode::empty()).map_err(&failed)?;
                let stat = fstat(&file).map_err(&failed)?;
                if FileType::from_raw_mode(stat.st_mode).is_file() {
                    self.contents(path, &file, &stat)?;
                } else {
                    self.skipped += 1;
                }
            }
            _ => self.skipped += 1,
        }
        Ok(None)
    }

    /// Exactly as many bytes as the header says, whatever happens to the file meanwhile.
    fn contents(&mut self, path: &[u8], file: &OwnedFd, stat: &Stat) -> Result<(), FileError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.header(path, EntryType::Regular, stat, size, b"")?;
        let mut remaining = size;
        let mut buffer = vec![0; PIECE_BYTES.min(usize::try_from(size).unwrap_or(PIECE_BYTES))];
        while remaining > 0 {
            let limit = buffer
                .len()
                .min(usize::try_from(remaining).unwrap_or(usize::MAX));
            let count = match rustix::io::read(file, &mut buffer[..limit]) {
                Ok(0) => {
                    return Err(FileError::Shrank {
                        path: printable(path),
                    });
                }
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(self.failed("read", path)(errno)),
            };
            self.out
                .write_all(&buffer[..count])
                .map_err(|_| FileError::Stream)?;
            remaining -= count as u64;
        }
        write_padding(self.out, size).map_err(|_| FileError::Stream)
    }

    fn header(
        &mut self,
        path: &[u8],
        kind: EntryType,
        stat: &Stat,
        size_bytes: u64,
        link: &[u8],
    ) -> Result<(), FileError> {
        let entry = Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
            size_bytes,
            link,
        };
        write_header(self.out, &entry).map_err(|_| FileError::Stream)
    }

    fn failed(&self, action: &'static str, path: &[u8]) -> impl Fn(Errno) -> FileError + use<W> {
        let path = self.root.join(std::ffi::OsStr::from_bytes(path));
        move |errno| FileError::system(action, &path)(errno)
    }
}
