//! Writing files so that nobody sees half of one.
//!
//! ```text
//!  create .cofferdam-<random> ──► write … ──► check the sha256 ──► rename over the target
//!                                 └── anything else: remove it, nothing was there
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::error::FileError;
use super::path::{Place, Workspace, make_directories};
use super::read::{Facts, facts};

/// A file being written. Must be ended by [`Self::finish`] or [`Self::abandon`].
#[derive(Debug)]
pub(crate) struct Writer {
    place: Place,
    temporary: OsString,
    file: File,
    mode: u32,
    digest: Sha256,
}

impl Writer {
    pub(crate) fn create(
        workspace: &Workspace,
        path: &str,
        mode: u32,
        parents: bool,
    ) -> Result<Self, FileError> {
        let mode = permission_bits(path, mode, 0o644)?;
        let place = if parents {
            workspace.place_with_parents(path)?
        } else {
            workspace.place(path)?
        };
        let temporary = temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let private = Mode::from_raw_mode(0o600);
        let file = openat(&place.parent, &temporary, flags | OFlags::CLOEXEC, private)
            .map_err(FileError::system("write", &place.path))?;
        Ok(Self {
            place,
            temporary,
            file: file.into(),
            mode,
            digest: Sha256::new(),
        })
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), FileError> {
        self.digest.update(data);
        self.file
            .write_all(data)
            .map_err(FileError::io("write", &self.place.path))
    }

    /// Puts the file in its place, if the sha256 is this one (or none is asked for).
    pub(crate) fn finish(self, sha256: &[u8]) -> Result<(Facts, [u8; 32]), FileError> {
        let found: [u8; 32] = self.digest.clone().finalize().into();
        if !sha256.is_empty() && sha256 != found {
            let path = self.place.path.to_string_lossy().into_owned();
            self.abandon();
            return Err(FileError::Digest {
                path,
                found: hex::encode(found),
            });
        }
        match self.put_in_place() {
            Ok(facts) => Ok((facts, found)),
            Err(errno) => {
                let error = FileError::system("write", &self.place.path)(errno);
                self.abandon();
                Err(error)
            }
        }
    }

    fn put_in_place(&self) -> Result<Facts, Errno> {
        fchmod(&self.file, Mode::from_raw_mode(self.mode))?;
        let parent = &self.place.parent;
        renameat(parent, &self.temporary, parent, &self.place.name)?;
        let path = self.place.path.to_string_lossy().into_owned();
        Ok(facts(path, &fstat(&self.file)?, String::new()))
    }

    /// Leaves nothing behind.
    pub(crate) fn abandon(self) {
        // If this fails, so would everything else that could be tried.
        let _ = unlinkat(&self.place.parent, &self.temporary, AtFlags::empty());
    }
}

/// For what is not whole yet.
pub(super) fn temporary_name() -> OsString {
    let mut random = [0; 12];
    // A name that is not random fails to be made if it is taken; that is all.
    let _ = getrandom::fill(&mut random);
    format!(".cofferdam-{}", hex::encode(random)).into()
}

/// Makes a directory; with parents, one that is there already is fine.
pub(crate) fn make_directory(
    workspace: &Workspace,
    path: &str,
    parents: bool,
    mode: u32,
) -> Result<(), FileError> {
    let mode = permission_bits(path, mode, 0o755)?;
    let full = workspace.path(path)?;
    if parents && let Some(parent) = full.parent() {
        make_directories(parent)?;
    }
    let place = match workspace.place(path) {
        // The root, or a path that ends with "..": there, if anything is.
        Err(FileError::Path { .. }) if parents => return make_directories(&full),
        place => place?,
    };
    match mkdirat(&place.parent, &place.name, Mode::from_raw_mode(0o700)) {
        Ok(()) => set_mode(&place, mode),
        Err(Errno::EXIST) if parents => make_directories(&full),
        Err(errno) => Err(FileError::system("make the directory", &full)(errno)),
    }
}

/// Not by the mode of the creation, which the umask would cut.
fn set_mode(place: &Place, mode: u32) -> Result<(), FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made: Result<OwnedFd, Errno> = openat(&place.parent, &place.name, flags, Mode::empty());
    made.and_then(|made| fchmod(made, Mode::from_raw_mode(mode)))
        .map_err(FileError::system("set the mode of", &place.path))
}

fn permission_bits(path: &str, mode: u32, default: u32) -> Result<u32, FileError> {
    match mode {
        0 => Ok(default),
        1..=0o7777 => Ok(mode),
        _ => Err(FileError::Path {
            path: path.into(),
            problem: "a mode has at most the bits 0o7777",
        }),
    }
}
