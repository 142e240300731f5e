//! A small disk for a gateway's state, which a test may fill up.
//!
//! It is mounted in a mount namespace of the test's own thread, and of the programs that it starts
//! from then on: nobody else sees it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

/// Files of a file system in memory take room by the page.
const PAGE: usize = 4096;

/// Unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one over an empty directory. Needs root.
    pub fn mount(dir: &Path, bytes: u64) -> Self {
        #[allow(
            unsafe_code,
            reason = "rustix leaves it to the caller not to unshare descriptors"
        )]
        // SAFETY: descriptors stay shared; only this thread's mounts, root and working directory
        // become its own, and no other thread relies on them.
        let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
        unshared.expect("unshare mounts");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).expect("make mounts private");
        let options = std::ffi::CString::new(format!("size={bytes},mode=0700")).expect("options");
        rustix::mount::mount(
            "tmpfs",
            dir,
            "tmpfs",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .expect("mount a tmpfs");
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Uses up all but this many bytes.
    pub fn fill(&self, left_bytes: u64) {
        let taken = self.left_bytes().saturating_sub(left_bytes);
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("a file");
        let zeros = [0; PAGE];
        for _ in 0..taken / PAGE as u64 {
            if file.write_all(&zeros).is_err() {
                // Somebody else was faster.
                return;
            }
        }
    }

    /// Gives back what `fill` has taken.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("remove the filler");
    }

    pub fn left_bytes(&self) -> u64 {
        let seen = rustix::fs::statvfs(&self.dir).expect("statvfs");
        seen.f_bavail * seen.f_frsize
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open on it keeps it until then.
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
    }
}
