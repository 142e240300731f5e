//! System calls that no workload needs and some exploit does.

use std::ffi::CStr;

use crate::{Findings, name};

pub(crate) type Arguments = [i64; 6];

const NONE: &CStr = c"none";
const TMP: &CStr = c"/tmp";
const TMPFS: &CStr = c"tmpfs";

/// Tries each once.
pub(crate) fn probe() -> Findings {
    let tries = namespaces().into_iter().chain(kernel()).chain(identity());
    tries
        .map(|(what, number, arguments)| (what.to_owned(), attempt(number, arguments)))
        .collect()
}

type Try = (&'static str, libc::c_long, Arguments);

fn text(text: &'static CStr) -> i64 {
    text.as_ptr() as i64
}

fn namespaces() -> Vec<Try> {
    let unshare = |what, flag: i32| (what, libc::SYS_unshare, [flag.into(), 0, 0, 0, 0, 0]);
    vec![
        (
            "mount",
            libc::SYS_mount,
            [text(NONE), text(TMP), text(TMPFS), 0, 0, 0],
        ),
        ("umount2", libc::SYS_umount2, [text(TMP), 2, 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [text(TMPFS), 0, 0, 0, 0, 0]),
        (
            "open_tree",
            libc::SYS_open_tree,
            [libc::AT_FDCWD.into(), text(TMP), 1, 0, 0, 0],
        ),
        (
            "pivot_root",
            libc::SYS_pivot_root,
            [text(TMP), text(TMP), 0, 0, 0, 0],
        ),
        ("chroot", libc::SYS_chroot, [text(TMP), 0, 0, 0, 0, 0]),
        unshare("unshare user", libc::CLONE_NEWUSER),
        unshare("unshare mount", libc::CLONE_NEWNS),
        unshare("unshare net", libc::CLONE_NEWNET),
        unshare("unshare pid", libc::CLONE_NEWPID),
        unshare("unshare cgroup", libc::CLONE_NEWCGROUP),
        (
            "setns",
            libc::SYS_setns,
            [own_namespace(), libc::CLONE_NEWUSER.into(), 0, 0, 0, 0],
        ),
    ]
}

/// A descriptor that stays open for as long as the probe runs.
fn own_namespace() -> i64 {
    use std::os::fd::IntoRawFd as _;
    std::fs::File::open("/proc/self/ns/user").map_or(-1, |file| file.into_raw_fd().into())
}

fn kernel() -> Vec<Try> {
    let ring = c"cofferdam";
    vec![
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0, 0]),
        (
            "add_key",
            libc::SYS_add_key,
            [text(c"user"), text(ring), text(ring), 1, -3, 0],
        ),
        (
            "request_key",
            libc::SYS_request_key,
            [text(c"user"), text(ring), 0, 0, 0, 0],
        ),
        (
            "perf_event_open",
            libc::SYS_perf_event_open,
            [0, 0, -1, -1, 0, 0],
        ),
        ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [0, 0, 0, 0, 0, 0]),
        (
            "delete_module",
            libc::SYS_delete_module,
            [text(ring), 0, 0, 0, 0, 0],
        ),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [text(TMP), 0, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
        (
            "io_uring_setup",
            libc::SYS_io_uring_setup,
            [1, 0, 0, 0, 0, 0],
        ),
        (
            "open_by_handle_at",
            libc::SYS_open_by_handle_at,
            [-100, 0, 0, 0, 0, 0],
        ),
        ("syslog", libc::SYS_syslog, [3, 0, 0, 0, 0, 0]),
        ("acct", libc::SYS_acct, [0, 0, 0, 0, 0, 0]),
    ]
}

fn identity() -> Vec<Try> {
    let device = i64::from(libc::S_IFCHR | 0o666);
    vec![
        ("setuid", libc::SYS_setuid, [0, 0, 0, 0, 0, 0]),
        ("setgid", libc::SYS_setgid, [0, 0, 0, 0, 0, 0]),
        ("setgroups", libc::SYS_setgroups, [0, 0, 0, 0, 0, 0]),
        (
            "sethostname",
            libc::SYS_sethostname,
            [text(NONE), 4, 0, 0, 0, 0],
        ),
        ("settimeofday", libc::SYS_settimeofday, [0, 0, 0, 0, 0, 0]),
        ("clock_settime", libc::SYS_clock_settime, [0, 0, 0, 0, 0, 0]),
        (
            "mknod",
            libc::SYS_mknodat,
            [-100, text(c"/tmp/probe-device"), device, 0x0101, 0, 0],
        ),
    ]
}

/// "ok", or the name of the error. A signal from the filter would end the probe, which the test
/// sees as well.
#[allow(
    unsafe_code,
    reason = "raw system calls with wrong arguments are the very thing to try"
)]
pub(crate) fn attempt(number: libc::c_long, [a, b, c, d, e, f]: Arguments) -> String {
    // SAFETY: pointers among the arguments come from `text` and from locals of the caller that
    // outlive the call; all other arguments are numbers, and none of these calls writes to memory
    // that the arguments do not name.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    match result {
        -1 => name(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        _ => "ok".to_owned(),
    }
}
