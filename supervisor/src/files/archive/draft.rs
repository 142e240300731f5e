//! An entry of an archive before it is whole: beside its place, under a name that nobody else has.
//!
//! What the entry replaces stays until the entry takes its place, which is one step. A draft that
//! is dropped before that leaves nothing behind.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, renameat, unlinkat};
use rustix::io::Errno;

use crate::files::write::temporary_name;

/// See the module.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    directory: BorrowedFd<'a>,
    name: OsString,
}

impl<'a> Draft<'a> {
    /// A name in this directory; what has it is for the caller to make, and not to find.
    pub(super) fn new(directory: BorrowedFd<'a>) -> Self {
        Self {
            directory,
            name: temporary_name(),
        }
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Replaces what has the name, unless that is a directory.
    pub(super) fn put_in_place(self, name: &OsStr) -> Result<(), Errno> {
        renameat(self.directory, &self.name, self.directory, name)
        // Dropped now: where both names were links to one file, the kernel has left both.
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // It is in its place, or was never made; if this fails otherwise, so would all else.
        let _ = unlinkat(self.directory, &self.name, AtFlags::empty());
    }
}
