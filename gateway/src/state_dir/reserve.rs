//! Space that is held so that it can be given up.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

/// Some hundred records.
pub(super) const RESERVE_BYTES: u64 = 2 << 20;

/// A file with nothing in it that takes up room.
#[derive(Debug)]
pub(super) struct Reserve {
    file: Option<File>,
    is_held: bool,
}

impl Reserve {
    /// Takes what is there already, or as much as is wanted; or nothing, where that cannot be.
    pub(super) fn take(directory: &Path) -> Self {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(directory.join("reserve")).ok();
        let is_held = file.as_ref().is_some_and(|file| {
            file.metadata()
                .is_ok_and(|about| about.len() == RESERVE_BYTES)
        });
        let mut reserve = Self { file, is_held };
        reserve.retake();
        reserve
    }

    pub(super) fn retake(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| !self.is_held) else {
            return;
        };
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
            Ok(()) => self.is_held = true,
            Err(error) => {
                // A part of it would look like the whole to the next start.
                let emptied = file.set_len(0);
                tracing::debug!(%error, ?emptied, "no reserve could be taken");
                if error == rustix::io::Errno::OPNOTSUPP {
                    self.file = None;
                }
            }
        }
    }

    /// True: there was one, and now there is room.
    pub(super) fn release(&mut self) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| self.is_held) else {
            return false;
        };
        self.is_held = false;
        file.set_len(0).is_ok()
    }

    pub(super) fn missing_bytes(&self) -> u64 {
        match (&self.file, self.is_held) {
            (Some(_), false) => RESERVE_BYTES,
            _ => 0,
        }
    }
}
