//! Looking at files, and reading them a piece at a time.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytes::Bytes;
use cofferdam_proto::PIECE_BYTES_MAX;
use rustix::fs::{FileType, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, readlinkat};
use rustix::io::pread;
use sha2::{Digest as _, Sha256};

use super::error::FileError;
use super::path::{Workspace, open_path, printable};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Regular,
    Directory,
    Symlink,
    Special,
}

/// What is known about a file.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) path: String,
    pub(crate) kind: FileKind,
    pub(crate) size_bytes: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modify_time_unix_ms: u64,
    pub(crate) link_target: String,
}

/// Looks at a path.
pub(crate) fn stat(workspace: &Workspace, path: &str, follow: bool) -> Result<Facts, FileError> {
    let full = workspace.path(path)?;
    let failed = FileError::system("look at", &full);
    let nofollow = if follow {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    let file = open_path(&full, OFlags::PATH | nofollow).map_err(&failed)?;
    let stat = fstat(&file).map_err(&failed)?;
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let target = readlinkat(&file, "", Vec::new()).map_err(&failed)?;
            printable(target.as_bytes())
        }
        _ => String::new(),
    };
    Ok(facts(full.to_string_lossy().into_owned(), &stat, target))
}

pub(super) fn facts(path: String, stat: &Stat, link_target: String) -> Facts {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Special,
    };
    let milliseconds =
        i128::from(stat.st_mtime) * 1000 + i128::from(stat.st_mtime_nsec) / 1_000_000;
    Facts {
        path,
        kind,
        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        // Before 1970 there is nothing to say.
        modify_time_unix_ms: u64::try_from(milliseconds).unwrap_or(0),
        link_target,
    }
}

/// A file being read. One piece is one call, so that a reader who stands still holds no thread.
#[derive(Debug)]
pub(crate) struct Reader {
    file: OwnedFd,
    facts: Facts,
    offset: u64,
    /// `None`: to the end.
    remaining: Option<u64>,
    digest: Sha256,
    sent_bytes: u64,
}

impl Reader {
    pub(crate) fn open(
        workspace: &Workspace,
        path: &str,
        offset: u64,
        length: u64,
    ) -> Result<Self, FileError> {
        let full = workspace.path(path)?;
        let failed = FileError::system("open", &full);
        // Not blocking, or a pipe without a writer would hold the thread.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open_path(&full, flags).map_err(&failed)?;
        let stat = fstat(&file).map_err(&failed)?;
        let text = full.to_string_lossy().into_owned();
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(FileError::Kind {
                path: text,
                expected: "a regular file",
            });
        }
        if belongs_to_a_process(&file) {
            return Err(FileError::Hidden { path: text });
        }
        let remaining = (length != 0).then_some(length);
        let facts = facts(text, &stat, String::new());
        Ok(Self {
            file,
            facts,
            offset,
            remaining,
            digest: Sha256::new(),
            sent_bytes: 0,
        })
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The next bytes; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        let limit = self
            .remaining
            .unwrap_or(u64::MAX)
            .min(PIECE_BYTES_MAX as u64) as usize;
        let mut piece: Vec<u8> = Vec::with_capacity(limit);
        while piece.len() < limit {
            let spare = rustix::buffer::spare_capacity(&mut piece);
            let count = match pread(&self.file, spare, self.offset) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(FileError::system("read", &self.facts.path)(errno)),
            };
            if count == 0 {
                break;
            }
            self.offset += count as u64;
        }
        if piece.is_empty() {
            return Ok(None);
        }
        self.remaining = self
            .remaining
            .map(|remaining| remaining - piece.len() as u64);
        self.sent_bytes += piece.len() as u64;
        self.digest.update(&piece);
        Ok(Some(piece.into()))
    }

    /// The sha256 of all pieces, and how many bytes they had.
    pub(crate) fn finish(self) -> ([u8; 32], u64) {
        (self.digest.finalize().into(), self.sent_bytes)
    }
}

/// `/proc/<pid>/…`: opened by our thread, the kernel would let it read the supervisor's own.
fn belongs_to_a_process(file: &OwnedFd) -> bool {
    if !fstatfs(file).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC) {
        return false;
    }
    let link = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    let is_number = |name: &OsStr| name.as_bytes().iter().all(u8::is_ascii_digit);
    // What cannot be told is not read.
    rustix::fs::readlink(link, Vec::new()).map_or(true, |path| {
        Path::new(OsStr::from_bytes(path.as_bytes()))
            .iter()
            .any(is_number)
    })
}
