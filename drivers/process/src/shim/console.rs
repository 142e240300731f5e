//! The supervisor's standard output and error, kept in two files of bounded size: the newest, and
//! the one before it. For "why did it never come up".

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, fstat, openat, renameat};
use rustix::io::Errno;

use crate::sandbox::layout::{CONSOLE_BYTES_MAX, CONSOLE_LOG, CONSOLE_LOG_OLD};

/// Where the console goes.
#[derive(Debug, Default)]
pub(crate) struct Console {
    file: Option<OwnedFd>,
    written: u64,
}

impl Console {
    /// Moves what the pipe holds to the file. Losing console output must not stop a sandbox, so
    /// errors end here.
    pub(crate) fn drain(&mut self, run_dir: &OwnedFd, pipe: &OwnedFd) {
        let mut buffer = [0; 4096];
        // Bounded, so that a supervisor that prints without end cannot keep the shim from its
        // deadline.
        for _ in 0..16 {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN) => return,
                Ok(count) => self.append(run_dir, &buffer[..count]),
                Err(_) => return,
            }
        }
    }

    fn append(&mut self, run_dir: &OwnedFd, bytes: &[u8]) {
        if self.written >= CONSOLE_BYTES_MAX {
            let _ = renameat(run_dir, CONSOLE_LOG, run_dir, CONSOLE_LOG_OLD);
            self.file = None;
        }
        if self.file.is_none() {
            let flags = OFlags::CREATE
                | OFlags::APPEND
                | OFlags::WRONLY
                | OFlags::NOFOLLOW
                | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            self.file = openat(run_dir, CONSOLE_LOG, flags, mode).ok();
            self.written = self
                .file
                .as_ref()
                .and_then(|file| fstat(file).ok())
                .map_or(0, |s| s.st_size as u64);
        }
        if let Some(file) = &self.file {
            let _ = rustix::io::write(file, bytes);
            self.written += bytes.len() as u64;
        }
    }
}
