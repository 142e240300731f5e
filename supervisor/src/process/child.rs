//! The child, from its birth below the shim to the exec: each step takes something away.
//!
//! The order matters: what needs privilege comes before its loss, and what must be checked as the
//! workload's user (entering the directory, executing) comes after. The child borrows the
//! supervisor's memory until it execs, so the rules of [`super::shim`] hold here too.
#![allow(
    unsafe_code,
    reason = "runs between clone and exec, on a stack of its own"
)]

use std::ffi::c_char;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::SeqCst;

use super::plan::{RawPlan, Stage};
use super::shim::exit;
use crate::sys::syscall;

/// A step that the kernel refused: the stage, and the negated error number.
type Failed = (Stage, isize);
type Step = unsafe fn(*const RawPlan) -> Result<(), Failed>;

const LAST_SIGNAL: usize = 64;
/// No kernel has had more capabilities; a number that it does not know ends the loop.
const CAPABILITIES_MAX: usize = 63;
/// The kernel's signal set is 8 bytes on these architectures.
const SIGSET_BYTES: usize = 8;

/// # Safety
/// As for `shim_main`.
pub(super) unsafe extern "C" fn child_main(argument: *mut libc::c_void) -> ! {
    // SAFETY: the shim is suspended until we exec or exit, and the plan is there until then.
    unsafe {
        let plan: *const RawPlan = argument.cast();
        let pid = syscall(libc::SYS_getpid, [0; 5]);
        (*plan).child_pid.store(pid as i32, SeqCst);
        let (stage, error) = become_workload(plan);
        (*plan).failed_errno.store(-error as i32, SeqCst);
        (*plan).failed_stage.store(stage as u32, SeqCst);
        exit(127)
    }
}

/// Only ever returns what went wrong.
unsafe fn become_workload(plan: *const RawPlan) -> Failed {
    // SAFETY: as for `child_main`.
    unsafe {
        let steps: [Step; 6] = [
            take_terminal,
            set_limits,
            drop_privileges,
            enter_directory,
            default_signals,
            share_cpu_time,
        ];
        for step in steps {
            if let Err(failed) = step(plan) {
                return failed;
            }
        }
        execute(plan)
    }
}

/// A session of its own; the terminal or the pipes become descriptors 0 to 2, and nothing else stays.
unsafe fn take_terminal(plan: *const RawPlan) -> Result<(), Failed> {
    // SAFETY: as for `child_main`.
    unsafe {
        check(Stage::Terminal, syscall(libc::SYS_setsid, [0; 5]))?;
        let stdio = (*plan).stdio;
        if (*plan).terminal {
            let attach = [stdio[0] as usize, libc::TIOCSCTTY as usize, 0, 0, 0];
            check(Stage::Terminal, syscall(libc::SYS_ioctl, attach))?;
        }
        for (target, fd) in stdio.into_iter().enumerate() {
            let copy = [fd as usize, target, 0, 0, 0];
            check(Stage::Terminal, syscall(libc::SYS_dup3, copy))?;
        }
        // The shim kept only these and one that the exec closes, and all are above 2.
        for fd in [(*plan).report, stdio[0], stdio[1], stdio[2]] {
            close(fd);
        }
    }
    Ok(())
}

unsafe fn close(fd: RawFd) {
    // SAFETY: the descriptor table is the child's own copy.
    unsafe {
        syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0]);
    }
}

unsafe fn set_limits(plan: *const RawPlan) -> Result<(), Failed> {
    // SAFETY: as for `child_main`.
    unsafe {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let core = [
            0,
            libc::RLIMIT_CORE as usize,
            &raw const none as usize,
            0,
            0,
        ];
        check(Stage::Limits, syscall(libc::SYS_prlimit64, core))?;
        let open_files = &raw const (*plan).open_files;
        let nofile = [0, libc::RLIMIT_NOFILE as usize, open_files as usize, 0, 0];
        check(Stage::Limits, syscall(libc::SYS_prlimit64, nofile))?;
        syscall(libc::SYS_umask, [0o022, 0, 0, 0, 0]);

        let fd = syscall(
            libc::SYS_openat,
            [
                libc::AT_FDCWD as usize,
                c"/proc/self/oom_score_adj".as_ptr() as usize,
                (libc::O_WRONLY | libc::O_CLOEXEC) as usize,
                0,
                0,
            ],
        );
        if fd < 0 {
            // The shim tries again after the exec.
            (*plan).oom_score_adj_refused.store(true, SeqCst);
        } else {
            // Refused only where the supervisor itself runs with a higher score, which is as good.
            let value = &raw const (*plan).oom_score_adj;
            let bytes = (*plan).oom_score_adj_bytes;
            syscall(libc::SYS_write, [fd as usize, value as usize, bytes, 0, 0]);
            close(fd as RawFd);
        }
    }
    Ok(())
}

unsafe fn drop_privileges(plan: *const RawPlan) -> Result<(), Failed> {
    // SAFETY: as for `child_main`.
    unsafe {
        for capability in 0..=CAPABILITIES_MAX {
            let drop = [libc::PR_CAPBSET_DROP as usize, capability, 0, 0, 0];
            // EINVAL: past the last one. EPERM: not privileged, so there is nothing to regain either.
            if syscall(libc::SYS_prctl, drop) < 0 {
                break;
            }
        }
        let clear = [
            libc::PR_CAP_AMBIENT as usize,
            libc::PR_CAP_AMBIENT_CLEAR_ALL as usize,
            0,
            0,
            0,
        ];
        syscall(libc::SYS_prctl, clear);

        let user = (*plan).user;
        let groups = syscall(libc::SYS_setgroups, [0; 5]);
        if user.differs {
            check(Stage::User, groups)?;
        }
        let (uid, gid) = (user.uid as usize, user.gid as usize);
        check(
            Stage::User,
            syscall(libc::SYS_setresgid, [gid, gid, gid, 0, 0]),
        )?;
        check(
            Stage::User,
            syscall(libc::SYS_setresuid, [uid, uid, uid, 0, 0]),
        )?;

        let header = CapabilityHeader {
            version: 0x2008_0522,
            pid: 0,
        };
        let nothing = [0u32; 6];
        let capset = [
            &raw const header as usize,
            &raw const nothing as usize,
            0,
            0,
            0,
        ];
        check(Stage::Privileges, syscall(libc::SYS_capset, capset))?;
        let no_new = [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0];
        check(Stage::Privileges, syscall(libc::SYS_prctl, no_new))?;
    }
    Ok(())
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

unsafe fn enter_directory(plan: *const RawPlan) -> Result<(), Failed> {
    // SAFETY: as for `child_main`.
    unsafe {
        let path = (*plan).directory as usize;
        check(
            Stage::Directory,
            syscall(libc::SYS_chdir, [path, 0, 0, 0, 0]),
        )
    }
}

/// Ignored signals would stay ignored over the exec, and blocked ones blocked.
unsafe fn default_signals(_plan: *const RawPlan) -> Result<(), Failed> {
    // The kernel's `struct sigaction`: a handler (null is the default), flags, restorer, mask.
    let default = [0usize; 4];
    let nothing_blocked = [0u8; SIGSET_BYTES];
    // SAFETY: the dispositions are the child's own copy.
    unsafe {
        for signal in 1..=LAST_SIGNAL {
            let action = [signal, &raw const default as usize, 0, SIGSET_BYTES, 0];
            syscall(libc::SYS_rt_sigaction, action);
        }
        let mask = &raw const nothing_blocked as usize;
        let unblock = [libc::SIG_SETMASK as usize, mask, 0, SIGSET_BYTES, 0];
        syscall(libc::SYS_rt_sigprocmask, unblock);
    }
    Ok(())
}

/// Last, so that the rest does not wait for cpu time. The kernel asks who opened the file, not who
/// writes. One thread that moves itself takes none of the locks that moving a process takes.
unsafe fn share_cpu_time(plan: *const RawPlan) -> Result<(), Failed> {
    // SAFETY: as for `child_main`.
    unsafe {
        let fd = (*plan).cpu_threads;
        if fd < 0 {
            return Ok(());
        }
        let oneself = b"0";
        let join = [fd as usize, oneself.as_ptr() as usize, oneself.len(), 0, 0];
        check(Stage::Limits, syscall(libc::SYS_write, join))
    }
}

/// Tries the candidates as `execvp` does: a missing one is passed over, a forbidden one remembered.
unsafe fn execute(plan: *const RawPlan) -> Failed {
    let mut error = -(libc::ENOENT as isize);
    // SAFETY: all three tables end with a null pointer.
    unsafe {
        let mut candidate: *const *const c_char = (*plan).candidates;
        while !(*candidate).is_null() {
            let program = *candidate as usize;
            let arguments = [
                program,
                (*plan).argv as usize,
                (*plan).environment as usize,
                0,
                0,
            ];
            let result = syscall(libc::SYS_execve, arguments);
            match -result as i32 {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => error = result,
                _ => return (Stage::Execute, result),
            }
            candidate = candidate.add(1);
        }
    }
    (Stage::Execute, error)
}

fn check(stage: Stage, result: isize) -> Result<(), Failed> {
    if result < 0 {
        Err((stage, result))
    } else {
        Ok(())
    }
}
