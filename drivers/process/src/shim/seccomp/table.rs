//! Which system calls pass, for x86-64 and aarch64.

use std::collections::BTreeMap;

use libc as sys;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Allow,
    /// Fails with this errno.
    Errno(u16),
    /// Depends on an argument.
    Check(Check),
}

/// A condition on arguments. Only the low 32 bits are looked at: of each of these arguments the
/// kernel itself ignores the rest, or refuses when it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) argument: u32,
    pub(super) cases: &'static [Case],
    pub(super) otherwise: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Equals(u32, Verdict),
    HasAnyOf(u32, Verdict),
    /// When the argument equals the first value, look at another argument, which must equal the
    /// second value to pass.
    EqualsAnd {
        value: u32,
        argument: u32,
        must_be: u32,
        otherwise: Verdict,
    },
}

/// The end of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Fail(u16),
}

/// The filter's content: rules by call number.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) by_number: BTreeMap<u32, Rule>,
    /// The last call number known when the table was written.
    pub(super) known_max: u32,
}

pub(super) const EPERM: u16 = sys::EPERM as u16;
pub(super) const ENOSYS: u16 = sys::ENOSYS as u16;
const PASS: Verdict = Verdict::Pass;
const REFUSE: Verdict = Verdict::Fail(EPERM);

/// `file_setattr`, Linux 6.17.
const KNOWN_MAX: u32 = 469;

/// Answered ENOSYS: `clone3`, because its flags lie behind a pointer that no filter can follow
/// (libc falls back to `clone`), and io_uring, because it performs calls no filter sees.
const ABSENT: &[i64] = &[
    sys::SYS_clone3,
    sys::SYS_io_uring_setup,
    sys::SYS_io_uring_enter,
    sys::SYS_io_uring_register,
];

/// All the namespaces; `CLONE_NEWTIME` exists only for `clone3` and `unshare`.
const NAMESPACE_FLAGS: u32 = (sys::CLONE_NEWNS
    | sys::CLONE_NEWCGROUP
    | sys::CLONE_NEWUTS
    | sys::CLONE_NEWIPC
    | sys::CLONE_NEWUSER
    | sys::CLONE_NEWPID
    | sys::CLONE_NEWNET) as u32;

const CLONE: Check = Check {
    argument: 0,
    cases: &[Case::HasAnyOf(NAMESPACE_FLAGS, REFUSE)],
    otherwise: PASS,
};

/// Typing into a terminal, and selecting on the console.
const IOCTL: Check = Check {
    argument: 1,
    cases: &[
        Case::Equals(sys::TIOCSTI as u32, REFUSE),
        Case::Equals(0x541C /* TIOCLINUX */, REFUSE),
    ],
    otherwise: PASS,
};

/// A debugger may run its own child (`PTRACE_TRACEME` and what follows), nobody may attach.
const PTRACE: Check = Check {
    argument: 0,
    cases: &[
        Case::Equals(sys::PTRACE_ATTACH, REFUSE),
        Case::Equals(0x4206 /* SEIZE */, REFUSE),
    ],
    otherwise: PASS,
};

/// With one host id the supervisor is the workload's equal: a limit on its processor time would
/// kill it, one on its descriptors make it deaf, and each of its threads has a number. So limits
/// are set on number 0 only, which is "this process"; that is what libc does.
const PRLIMIT: Check = Check {
    argument: 0,
    cases: &[Case::Equals(0, PASS)],
    otherwise: REFUSE,
};

/// Unix, IP, and the routing netlink that `getifaddrs` needs; no vsock, no packet, no crypto, none
/// of the families whose only visitors are exploits.
const SOCKET: Check = Check {
    argument: 0,
    cases: &[
        Case::Equals(sys::AF_UNIX as u32, PASS),
        Case::Equals(sys::AF_INET as u32, PASS),
        Case::Equals(sys::AF_INET6 as u32, PASS),
        Case::EqualsAnd {
            value: sys::AF_NETLINK as u32,
            argument: 2,
            must_be: sys::NETLINK_ROUTE as u32,
            otherwise: Verdict::Fail(sys::EPROTONOSUPPORT as u16),
        },
    ],
    otherwise: Verdict::Fail(sys::EAFNOSUPPORT as u16),
};

/// The execution domains that weaken nothing: `PER_LINUX` and `PER_LINUX32`, each also with
/// `UNAME26`; a debugger's `ADDR_NO_RANDOMIZE`; the query.
const PERSONALITY: Check = Check {
    argument: 0,
    cases: &[
        Case::Equals(0, PASS),
        Case::Equals(0x8, PASS),
        Case::Equals(0x2_0000, PASS),
        Case::Equals(0x2_0008, PASS),
        Case::Equals(0x4_0000, PASS),
        Case::Equals(u32::MAX, PASS),
    ],
    otherwise: REFUSE,
};

/// Calls that pass whatever their arguments.
#[rustfmt::skip]
const ALLOWED: &[i64] = &[
    // Files.
    sys::SYS_chdir, sys::SYS_close, sys::SYS_close_range, sys::SYS_copy_file_range, sys::SYS_dup,
    sys::SYS_dup3, sys::SYS_faccessat, sys::SYS_faccessat2, sys::SYS_fadvise64, sys::SYS_fallocate,
    sys::SYS_fchdir, sys::SYS_fchmod, sys::SYS_fchmodat, FCHMODAT2, sys::SYS_fchown,
    sys::SYS_fchownat, sys::SYS_fcntl, sys::SYS_fdatasync, sys::SYS_fgetxattr, sys::SYS_flistxattr,
    sys::SYS_flock, sys::SYS_fremovexattr, sys::SYS_fsetxattr, sys::SYS_fstat, sys::SYS_fstatfs,
    sys::SYS_fsync, sys::SYS_ftruncate, sys::SYS_getcwd, sys::SYS_getdents64, sys::SYS_getxattr,
    GETXATTRAT, sys::SYS_inotify_add_watch, sys::SYS_inotify_init1, sys::SYS_inotify_rm_watch,
    sys::SYS_lgetxattr, sys::SYS_linkat, LISTMOUNT, sys::SYS_listxattr, LISTXATTRAT,
    sys::SYS_llistxattr, sys::SYS_lremovexattr, sys::SYS_lseek, sys::SYS_lsetxattr,
    sys::SYS_mkdirat, sys::SYS_mknodat, sys::SYS_name_to_handle_at, sys::SYS_newfstatat,
    sys::SYS_openat, sys::SYS_openat2, sys::SYS_pread64, sys::SYS_preadv, sys::SYS_preadv2,
    sys::SYS_pwrite64, sys::SYS_pwritev, sys::SYS_pwritev2, sys::SYS_read, sys::SYS_readahead,
    sys::SYS_readlinkat, sys::SYS_readv, sys::SYS_removexattr, REMOVEXATTRAT, sys::SYS_renameat2, sys::SYS_sendfile, sys::SYS_setxattr, SETXATTRAT, sys::SYS_splice,
    sys::SYS_statfs, STATMOUNT, sys::SYS_statx, sys::SYS_symlinkat, sys::SYS_sync,
    sys::SYS_syncfs, sys::SYS_tee, sys::SYS_truncate, sys::SYS_umask,
    sys::SYS_unlinkat, sys::SYS_utimensat, sys::SYS_vmsplice, sys::SYS_write, sys::SYS_writev,
    CACHESTAT,
    // Waiting and events.
    sys::SYS_epoll_create1, sys::SYS_epoll_ctl, sys::SYS_epoll_pwait, sys::SYS_epoll_pwait2,
    sys::SYS_eventfd2, sys::SYS_io_cancel, sys::SYS_io_destroy, sys::SYS_io_getevents,
    sys::SYS_io_setup, sys::SYS_io_submit, sys::SYS_pipe2, sys::SYS_ppoll,
    sys::SYS_pselect6, sys::SYS_signalfd4, sys::SYS_timerfd_create, sys::SYS_timerfd_gettime,
    sys::SYS_timerfd_settime,
    // Memory.
    sys::SYS_brk, sys::SYS_madvise, MAP_SHADOW_STACK, sys::SYS_membarrier, sys::SYS_memfd_create,
    MEMFD_SECRET, sys::SYS_mincore, sys::SYS_mlock, sys::SYS_mlock2, sys::SYS_mlockall,
    sys::SYS_mmap, sys::SYS_mprotect, sys::SYS_mremap, MSEAL, sys::SYS_msync, sys::SYS_munlock,
    sys::SYS_munlockall, sys::SYS_munmap, sys::SYS_pkey_alloc, sys::SYS_pkey_free,
    sys::SYS_pkey_mprotect, sys::SYS_process_madvise, PROCESS_MRELEASE, sys::SYS_remap_file_pages,
    // Time.
    sys::SYS_adjtimex, sys::SYS_clock_adjtime, sys::SYS_clock_getres, sys::SYS_clock_gettime,
    sys::SYS_clock_nanosleep, sys::SYS_getitimer, sys::SYS_gettimeofday, sys::SYS_nanosleep,
    sys::SYS_setitimer, sys::SYS_timer_create, sys::SYS_timer_delete, sys::SYS_timer_getoverrun,
    sys::SYS_timer_gettime, sys::SYS_timer_settime, sys::SYS_times,
    // Processes and threads.
    sys::SYS_execve, sys::SYS_execveat, sys::SYS_exit, sys::SYS_exit_group, sys::SYS_futex,
    FUTEX_REQUEUE, FUTEX_WAIT, FUTEX_WAITV, FUTEX_WAKE, sys::SYS_get_robust_list, sys::SYS_getcpu,
    sys::SYS_getpgid, sys::SYS_getpid, sys::SYS_getppid, sys::SYS_getpriority, sys::SYS_getrandom,
    sys::SYS_getrusage, sys::SYS_getsid, sys::SYS_gettid, sys::SYS_ioprio_get,
    sys::SYS_ioprio_set, sys::SYS_kill, sys::SYS_pidfd_open, sys::SYS_pidfd_send_signal,
    sys::SYS_prctl, sys::SYS_restart_syscall, sys::SYS_rseq,
    sys::SYS_rt_sigaction, sys::SYS_rt_sigpending, sys::SYS_rt_sigprocmask,
    sys::SYS_rt_sigqueueinfo, sys::SYS_rt_sigreturn, sys::SYS_rt_sigsuspend,
    sys::SYS_rt_sigtimedwait, sys::SYS_rt_tgsigqueueinfo, sys::SYS_sched_get_priority_max,
    sys::SYS_sched_get_priority_min, sys::SYS_sched_getaffinity, sys::SYS_sched_getattr,
    sys::SYS_sched_getparam, sys::SYS_sched_getscheduler, sys::SYS_sched_rr_get_interval,
    sys::SYS_sched_setaffinity, sys::SYS_sched_setattr, sys::SYS_sched_setparam,
    sys::SYS_sched_setscheduler, sys::SYS_sched_yield, sys::SYS_set_robust_list,
    sys::SYS_set_tid_address, sys::SYS_setpgid, sys::SYS_setpriority,
    sys::SYS_setsid, sys::SYS_sigaltstack, sys::SYS_sysinfo, sys::SYS_tgkill, sys::SYS_tkill,
    sys::SYS_uname, sys::SYS_wait4, sys::SYS_waitid,
    // Identity: inert without capabilities, and the supervisor needs them.
    sys::SYS_capget, sys::SYS_capset, sys::SYS_getegid, sys::SYS_geteuid, sys::SYS_getgid,
    sys::SYS_getgroups, sys::SYS_getresgid, sys::SYS_getresuid, sys::SYS_getuid, sys::SYS_setfsgid,
    sys::SYS_setfsuid, sys::SYS_setgid, sys::SYS_setgroups, sys::SYS_setregid, sys::SYS_setresgid,
    sys::SYS_setresuid, sys::SYS_setreuid, sys::SYS_setuid,
    // Further confinement of oneself.
    sys::SYS_landlock_add_rule, sys::SYS_landlock_create_ruleset, sys::SYS_landlock_restrict_self,
    sys::SYS_seccomp,
    // Sockets and System V / POSIX IPC, in the sandbox's own namespaces.
    sys::SYS_accept, sys::SYS_accept4, sys::SYS_bind, sys::SYS_connect, sys::SYS_getpeername,
    sys::SYS_getsockname, sys::SYS_getsockopt, sys::SYS_listen, sys::SYS_mq_getsetattr,
    sys::SYS_mq_notify, sys::SYS_mq_open, sys::SYS_mq_timedreceive, sys::SYS_mq_timedsend,
    sys::SYS_mq_unlink, sys::SYS_msgctl, sys::SYS_msgget, sys::SYS_msgrcv, sys::SYS_msgsnd,
    sys::SYS_recvfrom, sys::SYS_recvmmsg, sys::SYS_recvmsg, sys::SYS_semctl, sys::SYS_semget,
    sys::SYS_semop, sys::SYS_semtimedop, sys::SYS_sendmmsg, sys::SYS_sendmsg, sys::SYS_sendto,
    sys::SYS_setsockopt, sys::SYS_shmat, sys::SYS_shmctl, sys::SYS_shmdt, sys::SYS_shmget,
    sys::SYS_shutdown, sys::SYS_socketpair,
];

/// The calls that newer machines have done away with, and those libc names on this one only.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[i64] = &[
    sys::SYS_access, sys::SYS_alarm, sys::SYS_arch_prctl, sys::SYS_chmod, sys::SYS_chown,
    sys::SYS_creat, sys::SYS_dup2, sys::SYS_epoll_create, sys::SYS_epoll_ctl_old,
    sys::SYS_epoll_wait, sys::SYS_epoll_wait_old, sys::SYS_eventfd, sys::SYS_fork,
    sys::SYS_futimesat, sys::SYS_get_thread_area, sys::SYS_getdents, sys::SYS_getpgrp,
    sys::SYS_inotify_init, sys::SYS_lchown, sys::SYS_link, sys::SYS_lstat, sys::SYS_mkdir,
    sys::SYS_mknod, sys::SYS_modify_ldt, sys::SYS_open, sys::SYS_pause, sys::SYS_pipe,
    sys::SYS_poll, sys::SYS_readlink, sys::SYS_rename, sys::SYS_rmdir, sys::SYS_select,
    sys::SYS_set_thread_area, sys::SYS_signalfd, sys::SYS_stat, sys::SYS_symlink, sys::SYS_time,
    sys::SYS_unlink, sys::SYS_utime, sys::SYS_utimes, sys::SYS_vfork,
    sys::SYS_getrlimit, sys::SYS_setrlimit, sys::SYS_renameat, sys::SYS_sync_file_range,
    333, // io_pgetevents
    335, // uretprobe and
    336, // uprobe: the kernel makes a probed process call them
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[i64] = &[
    38,  // renameat
    84,  // sync_file_range
    163, // getrlimit
    164, // setrlimit
    292, // io_pgetevents
];

// One number on every architecture, and not yet named by libc on all of them.
const MEMFD_SECRET: i64 = 447;
const PROCESS_MRELEASE: i64 = 448;
const FUTEX_WAITV: i64 = 449;
const CACHESTAT: i64 = 451;
const FCHMODAT2: i64 = 452;
const MAP_SHADOW_STACK: i64 = 453;
const FUTEX_WAKE: i64 = 454;
const FUTEX_WAIT: i64 = 455;
const FUTEX_REQUEUE: i64 = 456;
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;
const MSEAL: i64 = 462;
const SETXATTRAT: i64 = 463;
const GETXATTRAT: i64 = 464;
const LISTXATTRAT: i64 = 465;
const REMOVEXATTRAT: i64 = 466;

/// The whole table.
pub(super) fn rules() -> Rules {
    let mut by_number = BTreeMap::new();
    for (calls, rule) in [
        (ALLOWED, Rule::Allow),
        (ALLOWED_HERE, Rule::Allow),
        (ABSENT, Rule::Errno(ENOSYS)),
        (&[sys::SYS_clone], Rule::Check(CLONE)),
        (&[sys::SYS_ioctl], Rule::Check(IOCTL)),
        (&[sys::SYS_personality], Rule::Check(PERSONALITY)),
        (&[sys::SYS_prlimit64], Rule::Check(PRLIMIT)),
        (&[sys::SYS_ptrace], Rule::Check(PTRACE)),
        (&[sys::SYS_socket], Rule::Check(SOCKET)),
    ] {
        by_number.extend(calls.iter().map(|&number| (number as u32, rule)));
    }
    Rules {
        by_number,
        known_max: KNOWN_MAX,
    }
}
