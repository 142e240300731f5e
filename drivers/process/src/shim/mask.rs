//! What a fresh `/proc` tells of the host, and no sandbox needs to know: how it was booted and
//! built, its disks, its devices, where its kernel lies in memory.
//!
//! As container engines do, what can be read otherwise is covered: a file by `/dev/null`, a
//! directory by an empty file system. What only root of the host may read is left to the kernel.

use std::os::fd::AsFd;

use rustix::fs::{CWD, FileType, stat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};

use super::failure::Context;
use super::sys;
use crate::sandbox::report::{Failure, Stage};

/// Not every kernel has all of them.
const MASKED: [&str; 20] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/driver",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/key-users",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/partitions",
    "/proc/schedstat",
    "/proc/scsi",
    "/proc/softirqs",
];

/// Covers them, in the `/proc` just mounted. They go with it.
pub(crate) fn mask_proc() -> Result<(), Failure> {
    for path in MASKED {
        match stat(path) {
            Ok(found) if FileType::from_raw_mode(found.st_mode).is_dir() => cover_directory(path),
            Ok(_) => cover_file(path),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
        .at(Stage::MaskProc, path)?;
    }
    Ok(())
}

fn cover_directory(path: &str) -> Result<(), Errno> {
    let closed = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(
        "tmpfs",
        path,
        "tmpfs",
        closed,
        c"mode=0555,size=4k,nr_inodes=1",
    )
}

fn cover_file(path: &str) -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let null = open_tree(CWD, "/dev/null", flags)?;
    let closed = sys::READ_ONLY | sys::NO_SUID | sys::NO_EXEC;
    sys::mount_setattr(null.as_fd(), closed, false)?;
    move_mount(
        &null,
        "",
        CWD,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}
