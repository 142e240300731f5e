//! The sandbox's file tree.
//!
//! ```text
//! /            tmpfs, read-only once built
//!   usr        the host's, recursively read-only, nosuid, nodev
//!   bin sbin lib*   as on the host: links into usr, or shown like usr
//!   etc        made here, plus harmless files of the host's, read-only and noexec
//!   dev        null zero full random urandom tty; pts of its own; shm
//!   proc       the init mounts it, from inside its pid namespace
//!   tmp run workspace dev/shm    tmpfs, bounded, nosuid, nodev
//!   home root opt srv mnt var    empty
//! ```
//!
//! The new root is laid over the old one's `/tmp`, filled through relative paths, and entered
//! with `pivot_root(".", "proc")`: the old root then hangs on `/proc`, where the kernel still
//! finds the proc file system that must be visible for a new one to be allowed. The init takes
//! it away and mounts its own.

mod etc;
mod source;

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_change, move_mount,
};
use rustix::process::{chdir, pivot_root};

use super::failure::Context;
use super::sys;
use crate::sandbox::plan::ShimPlan;
use crate::sandbox::report::{Failure, Stage};

pub(crate) use source::{Sources, open as open_sources};

/// Where the new root is built: an existing directory of the host, hidden only in our namespace.
const STAGING: [&str; 4] = ["/tmp", "/run", "/mnt", "/var"];

/// The bound of `/run`.
const RUN_BYTES: u64 = 4 * 1024 * 1024;

const NO_SUID_DEV: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Cuts the namespace off from mount events of the host.
pub(crate) fn make_private() -> Result<(), Failure> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).at(Stage::PrivateMounts, "/")
}

/// Builds the tree and makes it the root of this process and of everyone in its namespace.
pub(crate) fn build_and_enter(plan: &ShimPlan, sources: Sources) -> Result<(), Failure> {
    enter_empty_root()?;
    make_directories()?;
    make_links(&sources)?;
    make_etc(plan)?;
    for source in sources.binds {
        attach(source)?;
    }
    mount_writable(plan)?;
    let root = openat(
        CWD,
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at(Stage::MountRoot, ".")?;
    sys::mount_setattr(root.as_fd(), sys::READ_ONLY, false).at(Stage::MountRoot, "read-only /")?;
    pivot_root(".", "proc").at(Stage::PivotRoot, "")?;
    chdir("/").at(Stage::PivotRoot, "/")
}

fn enter_empty_root() -> Result<(), Failure> {
    let staging = STAGING
        .iter()
        .find(|path| source::host_has(path))
        .unwrap_or(&STAGING[0]);
    mount(
        "tmpfs",
        *staging,
        "tmpfs",
        NO_SUID_DEV,
        c"mode=0755,size=4m,nr_inodes=4096",
    )
    .at(Stage::MountRoot, *staging)?;
    chdir(*staging).at(Stage::MountRoot, *staging)
}

fn make_directories() -> Result<(), Failure> {
    for name in [
        "usr",
        "etc",
        "proc",
        "dev",
        "dev/pts",
        "dev/shm",
        "tmp",
        "run",
        "workspace",
    ] {
        make_dir(Path::new(name), 0o755)?;
    }
    for name in ["home", "opt", "srv", "mnt", "var"] {
        make_dir(Path::new(name), 0o755)?;
    }
    make_dir(Path::new("root"), 0o700)
}

fn make_links(sources: &Sources) -> Result<(), Failure> {
    for (at, content) in [
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
        ("dev/ptmx", "pts/ptmx"),
        ("etc/mtab", "/proc/self/mounts"),
        ("var/run", "/run"),
        ("var/tmp", "/tmp"),
    ] {
        symlinkat(content, CWD, at).at(Stage::FillRoot, at)?;
    }
    for (at, content) in &sources.links {
        make_parents(at)?;
        symlinkat(content, CWD, at).at(Stage::FillRoot, at.display())?;
    }
    Ok(())
}

fn make_etc(plan: &ShimPlan) -> Result<(), Failure> {
    for (name, content) in etc::files(plan) {
        let path = Path::new("etc").join(name);
        let file = create(&path)?;
        rustix::io::write(&file, content.as_bytes()).at(Stage::FillRoot, path.display())?;
    }
    Ok(())
}

fn attach(source: source::Source) -> Result<(), Failure> {
    let shown = source.target.display();
    make_parents(&source.target)?;
    if source.is_dir {
        make_dir(&source.target, 0o755)?;
    } else {
        create(&source.target)?;
    }
    if source.attributes != 0 {
        sys::mount_setattr(source.tree.as_fd(), source.attributes, true)
            .at(Stage::ProtectBind, &shown)?;
    }
    move_mount(
        &source.tree,
        "",
        CWD,
        &source.target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .at(Stage::MountBind, &shown)
}

fn mount_writable(plan: &ShimPlan) -> Result<(), Failure> {
    let (limits, who) = (&plan.limits, &plan.workload);
    // In a one-id sandbox the namespace that owns these mounts knows the workload as 0.
    let owner = match plan.ids {
        crate::sandbox::plan::IdMapping::Block { .. } => (who.uid, who.gid),
        crate::sandbox::plan::IdMapping::Single { .. } => (0, 0),
    };
    mount_tmpfs("tmp", limits.tmp_bytes, "mode=1777", NO_SUID_DEV)?;
    mount_tmpfs(
        "dev/shm",
        limits.tmp_bytes,
        "mode=1777",
        NO_SUID_DEV | MountFlags::NOEXEC,
    )?;
    let owned = format!("mode=0755,uid={},gid={}", owner.0, owner.1);
    mount_tmpfs("run", RUN_BYTES, &owned, NO_SUID_DEV)?;
    mount_tmpfs("workspace", limits.workspace_bytes, &owned, NO_SUID_DEV)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(
        "devpts",
        "dev/pts",
        "devpts",
        flags,
        c"newinstance,ptmxmode=0666,mode=0620",
    )
    .at(Stage::MountDevpts, "")
}

fn mount_tmpfs(target: &str, bytes: u64, who: &str, flags: MountFlags) -> Result<(), Failure> {
    // Files smaller than a page must not be able to exhaust kernel memory either.
    let inodes = (bytes / 2048).max(1024);
    let options = format!("size={bytes},nr_inodes={inodes},{who}\0");
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap_or(c"size=4096");
    mount("tmpfs", target, "tmpfs", flags, options).at(Stage::MountTmpfs, target)
}

fn make_parents(path: &Path) -> Result<(), Failure> {
    let parents: Vec<_> = path
        .ancestors()
        .skip(1)
        .filter(|p| !p.as_os_str().is_empty())
        .collect();
    parents
        .into_iter()
        .rev()
        .try_for_each(|parent| make_dir(parent, 0o755))
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Failure> {
    match mkdirat(CWD, path, Mode::from_raw_mode(mode)) {
        Err(Errno::EXIST) => Ok(()),
        other => other.at(Stage::FillRoot, path.display()),
    }
}

fn create(path: &Path) -> Result<std::os::fd::OwnedFd, Failure> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::from_raw_mode(0o644)).at(Stage::FillRoot, path.display())
}
