//! The system calls that neither `std` nor rustix offers, each wrapped once.
//!
//! Everything unsafe of the shim is in this file, except the argument tables of seccomp and
//! Landlock, which go through [`seccomp`] and [`landlock_add_path`] here too.
#![allow(
    unsafe_code,
    reason = "raw system calls; each block states why it is sound"
)]

use std::ffi::{CStr, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// The namespaces a sandbox gets, as `clone` flags.
pub(crate) const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;
pub(crate) const NEW_MOUNT: u64 = libc::CLONE_NEWNS as u64;
pub(crate) const NEW_IPC: u64 = libc::CLONE_NEWIPC as u64;
pub(crate) const NEW_UTS: u64 = libc::CLONE_NEWUTS as u64;
pub(crate) const NEW_NET: u64 = libc::CLONE_NEWNET as u64;
pub(crate) const NEW_PID: u64 = libc::CLONE_NEWPID as u64;
pub(crate) const NEW_CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
const PIDFD: u64 = libc::CLONE_PIDFD as u64;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// The two sides of a fork.
#[derive(Debug)]
pub(crate) enum Fork {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `fork` with namespaces. The caller must be single-threaded: the child goes on with a copy of
/// the whole process, locks included. The shim is, by construction.
pub(crate) fn clone3(flags: u64, into_cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args: no flags, no pointers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | PIDFD;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(dir) = into_cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of memory and stack.
    // The struct outlives the call, and its only pointer is to `pidfd`, which does too.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the kernel stored a new descriptor there, owned by nobody else.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent {
        pid: pid as i32,
        pidfd,
    })
}

/// Leaves namespaces for new ones. The caller is single-threaded.
pub(crate) fn unshare(namespaces: u64) -> Result<(), Errno> {
    // SAFETY: namespaces only: no CLONE_FILES, which could pull descriptors from under others.
    check(unsafe { libc::unshare(namespaces as i32) }.into()).map(drop)
}

/// Replaces the process by the program in `file`. Returns only on failure.
pub(crate) fn exec_file(file: BorrowedFd<'_>, argv: &[&CStr], envp: &[&CStr]) -> Errno {
    let pointers = |strings: &[&CStr]| -> Vec<*const libc::c_char> {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(argv), pointers(envp));
    // SAFETY: both vectors are null-terminated arrays of C strings that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Ends the process at once: no destructors, which belong to the parent's copy.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Attributes for [`mount_setattr`].
pub(crate) const READ_ONLY: u64 = 0x1;
pub(crate) const NO_SUID: u64 = 0x2;
pub(crate) const NO_DEV: u64 = 0x4;
pub(crate) const NO_EXEC: u64 = 0x8;

/// `struct mount_attr` (`linux/mount.h`).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes of the mount `dir` is the root of; of the whole tree when `recursive`.
pub(crate) fn mount_setattr(dir: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<(), Errno> {
    let attr = MountAttr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and struct outlive the call; the size is the struct's.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Blocks `signals` and returns a descriptor that reads them.
pub(crate) fn signal_fd(signals: &[i32]) -> Result<OwnedFd, Errno> {
    // SAFETY: sigemptyset and sigaddset initialise `set`; the numbers are valid signals.
    let set = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    };
    set_mask(&set)?;
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, flags) }.into())?;
    // SAFETY: a new descriptor owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A socket that nobody reads is an error, not the end of the process.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: "ignore" is a valid disposition of this signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Unblocks every signal and restores default dispositions of those Rust or a parent may have
/// set: what the supervisor should find.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    for signal in 1..=31 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: SIG_DFL is a valid disposition for every signal but those two.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: sigemptyset initialises the set.
    let none = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        set
    };
    set_mask(&none)
}

fn set_mask(set: &libc::sigset_t) -> Result<(), Errno> {
    let mask = std::ptr::from_ref(set);
    // SAFETY: the set is initialised, and the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) }.into())
        .map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: changes flags only; no descriptor is closed before an exec.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// Makes `from` also known as the number `to`, without close-on-exec.
pub(crate) fn place(from: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    // SAFETY: `to` is closed if open; the caller lays out the low numbers of a process that is
    // about to exec, and holds no owner of them.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }.into()).map(drop)
}

/// Moves a descriptor out of the low numbers.
pub(crate) fn lift(from: BorrowedFd<'_>, at_least: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: returns a new descriptor.
    let fd =
        check(unsafe { libc::fcntl(from.as_raw_fd(), libc::F_DUPFD_CLOEXEC, at_least) }.into())?;
    // SAFETY: new, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sets `IFF_UP` on `lo` of the current network namespace.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    // SAFETY: plain socket creation.
    let fd = check(
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    // SAFETY: new, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
        .map(drop)
}

/// Installs a seccomp filter program.
pub(crate) fn seccomp(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::TOOBIG)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter` and writes nothing.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
    .map(drop)
}

/// `struct landlock_ruleset_attr` as of ABI 6.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LandlockRuleset {
    pub(crate) handled_access_fs: u64,
    pub(crate) handled_access_net: u64,
    pub(crate) scoped: u64,
}

/// The kernel's Landlock ABI; an error when it has none.
pub(crate) fn landlock_abi() -> Result<u32, Errno> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: the version query takes no struct.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            VERSION,
        )
    })
    .map(|abi| abi as u32)
}

/// Creates a ruleset from the first `size` bytes of `attr`.
pub(crate) fn landlock_create(attr: &LandlockRuleset, size: usize) -> Result<OwnedFd, Errno> {
    assert!(
        size <= size_of::<LandlockRuleset>(),
        "the kernel would read past the struct"
    );
    // SAFETY: `size` bytes at `attr` are readable, checked above.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(attr),
            size,
            0,
        )
    })?;
    // SAFETY: new, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Allows `access` beneath the directory `path` is open on.
pub(crate) fn landlock_add_path(
    ruleset: BorrowedFd<'_>,
    path: BorrowedFd<'_>,
    access: u64,
) -> Result<(), Errno> {
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: i32,
    }
    const PATH_BENEATH: libc::c_uint = 1;
    let rule = PathBeneath {
        allowed_access: access,
        parent_fd: path.as_raw_fd(),
    };
    // SAFETY: the struct has the kernel's layout and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0,
        )
    })
    .map(drop)
}

/// Enters the domain; needs `no_new_privs`.
pub(crate) fn landlock_restrict(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}

fn check(result: c_long) -> Result<c_long, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    let errno = std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO);
    Err(Errno::from_raw_os_error(errno))
}
