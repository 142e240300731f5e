//! What the process does to itself before it does anything else.
//!
//! Afterwards nobody of the workload's user can look into it, it can be signalled only on purpose,
//! and it has kept only the privileges that it needs.
#![allow(
    unsafe_code,
    reason = "signal masks, signalfd, limits and per-thread ids"
)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::process::DESCRIPTORS_WITHOUT_CLOSE_RANGE;

/// Enough for all processes that the table holds, at four descriptors each.
const DESCRIPTORS_MAX: u64 = 32 * 1024;

/// Hides memory and descriptors. First of all, before a secret is read.
pub(crate) fn hide() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    keep_stdio_open();
    Ok(())
}

/// Blocks all signals: those that matter are read from the returned signalfd. Before any thread is
/// made, since threads inherit the mask.
pub(crate) fn close_off() -> io::Result<OwnedFd> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::thread::set_no_new_privs(true)?;
    if std::process::id() != 1 {
        // Any pid means "yes". Orphans of a killed shim become our children, as they do for PID 1.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    read_signals()
}

/// The limit of open files as processes shall have it; raises the supervisor's own.
pub(crate) fn raise_descriptors() -> libc::rlimit {
    let own = getrlimit(Resource::Nofile);
    let most = DESCRIPTORS_MAX.min(DESCRIPTORS_WITHOUT_CLOSE_RANGE as u64);
    let wish = own.maximum.map_or(most, |maximum| maximum.min(most));
    let raised = Rlimit {
        current: Some(
            own.current
                .map_or(wish, |current| current.max(wish).min(most)),
        ),
        ..own
    };
    // With the limit as it was fewer processes are possible at once, which their start will say.
    let _ = setrlimit(Resource::Nofile, raised);
    let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    libc::rlimit {
        rlim_cur: number(own.current),
        rlim_max: number(own.maximum),
    }
}

/// Gives up what PID 1 never needs. What is kept: to become the workload's user and to drop the rest
/// on its behalf, to signal it, to give it terminals and pipes, to raise its OOM score.
///
/// # Errors
/// The kernel refuses, and the process has more than it should: nothing may be run then.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::SETPCAP
        | CapabilitySet::SYS_RESOURCE;
    let own = rustix::thread::capabilities(None)?;
    let permitted = own.permitted & kept;
    let sets = CapabilitySets {
        effective: permitted,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    // Supplementary groups would be the supervisor's in file operations done for the workload.
    match rustix::thread::set_thread_groups(&[]) {
        // An ordinary user may not give up his own groups, which a namespace of his denies, too.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the kernel prefer to spare us. Possible down to what the starter allowed.
pub(crate) fn lower_oom_score() {
    const FILE: &str = "/proc/self/oom_score_adj";
    if std::fs::write(FILE, "-1000").is_ok() {
        return;
    }
    let inherited = std::fs::read_to_string(FILE)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if inherited.is_some_and(|score: i32| score > 0) {
        // Refused where a privileged starter wanted it so.
        let _ = std::fs::write(FILE, "0");
    }
}

/// Lets the calling thread's file operations be checked as if the workload's user did them.
pub(crate) fn become_for_files(uid: u32, gid: u32) {
    // SAFETY: system calls that take numbers. The group goes first, while it may. Such a change may
    // make our memory dumpable again, by a setting of the system.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
    }
}

/// Whether [`become_for_files`] would work from here.
pub(crate) fn can_become_for_files(uid: u32, gid: u32) -> bool {
    let (own_uid, own_gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if (own_uid.as_raw(), own_gid.as_raw()) == (uid, gid) {
        return true;
    }
    let needed = CapabilitySet::SETGID | CapabilitySet::SETUID;
    rustix::thread::capabilities(None).is_ok_and(|own| own.effective.contains(needed))
}

/// Later descriptors must not become standard streams by being the lowest free number.
fn keep_stdio_open() {
    while let Ok(fd) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        if fd.as_raw_fd() > 2 {
            return;
        }
        // It stays open, as one of the three.
        let _ = fd.into_raw_fd();
    }
}

fn read_signals() -> io::Result<OwnedFd> {
    // SAFETY: plain calls on local sets. An inherited "ignore" of SIGCHLD would reap our children; a
    // pipe that nobody reads is an error, not the end.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        if libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut wanted: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut wanted);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
            libc::sigaddset(&mut wanted, signal);
        }
        let fd = libc::signalfd(-1, &wanted, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}
