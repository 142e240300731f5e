//! The shim above each process: it makes the process tree attributable.
//!
//! ```text
//! supervisor ──clone──► shim (child subreaper) ──clone, exec──► the process ─► descendants
//!      ▲                  │                                                       │
//!      └──report pipe─────┘ ◄──── whoever loses its parent becomes the shim's ────┘
//! ```
//!
//! A descendant that leaves its session or process group, or that is orphaned on purpose, still has
//! this shim as an ancestor, so that the whole tree can be found without cgroups. The shim never
//! execs. It shares the supervisor's memory (`CLONE_VM`), which makes it cheap: no page table is
//! copied, whatever the spools hold. In return it allocates nothing, takes no lock, touches no
//! thread-local and goes to the kernel by [`crate::sys`] alone.
#![allow(
    unsafe_code,
    reason = "runs between clone and exec, on a stack of its own"
)]

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::Ordering::SeqCst;

use super::child::child_main;
use super::plan::{RawPlan, Stage};
use crate::sys::{clone, syscall};

/// What the shim says on its pipe. Shorter than `PIPE_BUF`, so never torn.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    pub(super) kind: u32,
    /// The main process.
    pub(super) pid: i32,
    /// Started: the stage that failed, and its error number. Ended: the wait status.
    pub(super) detail: u32,
    pub(super) errno: i32,
    pub(super) user_us: u64,
    pub(super) system_us: u64,
    pub(super) max_rss_kib: u64,
}

pub(super) const REPORT_BYTES: usize = size_of::<Report>();
pub(super) const STARTED: u32 = 1;
pub(super) const ENDED: u32 = 2;

impl Report {
    pub(super) fn from_bytes(bytes: &[u8; REPORT_BYTES]) -> Self {
        // SAFETY: any bytes are a valid Report; the read may be unaligned.
        unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) }
    }
}

/// The shim's life.
///
/// # Safety
/// `argument` is a `RawPlan` that stays until the report `STARTED`, and forever if that never comes.
pub(super) unsafe extern "C" fn shim_main(argument: *mut libc::c_void) -> ! {
    // SAFETY: the caller's promise.
    unsafe {
        let plan: *const RawPlan = argument.cast();
        let report = (*plan).report;
        close_all_but((*plan).kept);
        syscall(
            libc::SYS_prctl,
            [libc::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0],
        );
        syscall(
            libc::SYS_prctl,
            [
                libc::PR_SET_NAME as usize,
                c"cofferdam-shim".as_ptr() as usize,
                0,
                0,
                0,
            ],
        );

        let main = clone(
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (*plan).child_stack_top,
            child_main,
            argument,
        );
        // Becoming another user resets this for the memory that the child has shared with us, to
        // what a setting of the system says.
        syscall(
            libc::SYS_prctl,
            [libc::PR_SET_DUMPABLE as usize, 0, 0, 0, 0],
        );
        let [stdin, stdout, stderr] = (*plan).stdio;
        for fd in [stdin, stdout, stderr, (*plan).cpu_threads] {
            syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0]);
        }
        let mut started = Report {
            kind: STARTED,
            ..Report::default()
        };
        if main < 0 {
            started.detail = Stage::Clone as u32;
            started.errno = -main as i32;
        } else {
            started.pid = main as i32;
            started.detail = (*plan).failed_stage.load(SeqCst);
            started.errno = (*plan).failed_errno.load(SeqCst);
        }
        let late_oom = (*plan).oom_score_adj_refused.load(SeqCst) && started.detail == 0;
        let oom_score_adj = (*plan).oom_score_adj;
        let oom_score_adj_bytes = (*plan).oom_score_adj_bytes;
        send(report, &started);
        // From here on the plan may be gone.
        if late_oom {
            raise_oom_score(main as i32, &oom_score_adj, oom_score_adj_bytes);
        }
        reap_until_childless(report, main as i32)
    }
}

/// Waits for every child, also adopted ones, and says when the main process has ended.
///
/// The end of the main process is only looked at, then told, and only then is the process reaped: a
/// shim that is killed in between leaves the supervisor a zombie to learn it from.
unsafe fn reap_until_childless(report: RawFd, main: i32) -> ! {
    // SAFETY: system calls on our own stack memory.
    unsafe {
        loop {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let mut usage: libc::rusage = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOWAIT | libc::__WALL;
            let result = syscall(
                libc::SYS_waitid,
                [
                    libc::P_ALL as usize,
                    0,
                    &raw mut info as usize,
                    options as usize,
                    &raw mut usage as usize,
                ],
            );
            if result == -(libc::EINTR as isize) {
                continue;
            }
            if result < 0 {
                exit(0);
            }
            let pid = info.si_pid();
            if pid == main {
                let ended = Report {
                    kind: ENDED,
                    pid: main,
                    detail: wait_status(info.si_code, info.si_status()) as u32,
                    errno: 0,
                    user_us: microseconds(&usage.ru_utime),
                    system_us: microseconds(&usage.ru_stime),
                    max_rss_kib: usage.ru_maxrss as u64,
                };
                send(report, &ended);
                syscall(libc::SYS_close, [report as usize, 0, 0, 0, 0]);
            }
            syscall(
                libc::SYS_wait4,
                [pid as usize, 0, libc::__WALL as usize, 0, 0],
            );
        }
    }
}

/// What `wait` would have said.
fn wait_status(code: i32, status: i32) -> i32 {
    match code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    }
}

fn microseconds(time: &libc::timeval) -> u64 {
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000)
        .wrapping_add(time.tv_usec as u64)
}

unsafe fn send(fd: RawFd, report: &Report) {
    // SAFETY: the report is plain memory. A pipe without a reader gives an error, for SIGPIPE is
    // blocked here; nobody is left to be told then.
    unsafe {
        syscall(
            libc::SYS_write,
            [
                fd as usize,
                ptr::from_ref(report) as usize,
                REPORT_BYTES,
                0,
                0,
            ],
        );
    }
}

/// Closes all descriptors but these, which are ascending and may repeat; negative is none.
unsafe fn close_all_but(kept: [RawFd; 5]) {
    // SAFETY: the descriptor table is the shim's own copy.
    unsafe {
        let mut first = 0;
        for fd in kept {
            if fd > first {
                close_range(first as usize, fd as usize - 1);
            }
            first = if fd >= first { fd + 1 } else { first };
        }
        close_range(first as usize, u32::MAX as usize);
    }
}

unsafe fn close_range(first: usize, last: usize) {
    // SAFETY: as for the caller.
    unsafe {
        if syscall(libc::SYS_close_range, [first, last, 0, 0, 0]) >= 0 {
            return;
        }
        // A kernel before 5.9, or a platform that lacks the call.
        let mut fd = first;
        while fd <= last && fd < DESCRIPTORS_WITHOUT_CLOSE_RANGE {
            syscall(libc::SYS_close, [fd, 0, 0, 0, 0]);
            fd += 1;
        }
    }
}

/// The supervisor's own limit of open files, which it sets no higher than this.
pub(crate) const DESCRIPTORS_WITHOUT_CLOSE_RANGE: usize = 65_536;

/// Without privilege the child's own `oom_score_adj` cannot be opened before it has execed, since
/// our memory is not dumpable. After the exec it belongs to the user; that may take a moment.
unsafe fn raise_oom_score(pid: i32, value: &[u8; 8], value_bytes: usize) {
    let mut path = [0u8; 48];
    write_proc_path(&mut path, pid as u32, b"/oom_score_adj\0");
    let pause = libc::timespec {
        tv_sec: 0,
        tv_nsec: 100_000,
    };
    // SAFETY: system calls on our own stack memory.
    unsafe {
        let mut attempt = 0;
        while attempt < 20 {
            let fd = syscall(
                libc::SYS_openat,
                [
                    libc::AT_FDCWD as usize,
                    path.as_ptr() as usize,
                    (libc::O_WRONLY | libc::O_CLOEXEC) as usize,
                    0,
                    0,
                ],
            );
            if fd >= 0 {
                syscall(
                    libc::SYS_write,
                    [fd as usize, value.as_ptr() as usize, value_bytes, 0, 0],
                );
                syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0]);
                return;
            }
            if fd != -(libc::EACCES as isize) {
                return;
            }
            syscall(libc::SYS_nanosleep, [&raw const pause as usize, 0, 0, 0, 0]);
            attempt += 1;
        }
    }
}

/// Writes `/proc/<pid><suffix>`; the suffix ends with a zero byte.
fn write_proc_path(path: &mut [u8; 48], pid: u32, suffix: &[u8]) {
    let mut digits = [0u8; 10];
    let mut count = 0;
    let mut rest = pid;
    while count < digits.len() {
        digits[count] = b'0' + (rest % 10) as u8;
        count += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let ascending = digits.iter().take(count).rev();
    let all = b"/proc/".iter().chain(ascending).chain(suffix);
    for (to, from) in path.iter_mut().zip(all) {
        *to = *from;
    }
}

/// # Safety
/// Ends the calling process.
pub(super) unsafe fn exit(code: usize) -> ! {
    // SAFETY: these calls do not return; the loop tells the compiler so.
    unsafe {
        loop {
            syscall(libc::SYS_exit_group, [code, 0, 0, 0, 0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(pid: u32) -> String {
        let mut bytes = [0xffu8; 48];
        write_proc_path(&mut bytes, pid, b"/oom_score_adj\0");
        let end = bytes
            .iter()
            .position(|&byte| byte == 0)
            .expect("terminated");
        String::from_utf8(bytes[..end].to_vec()).expect("plain")
    }

    #[test]
    fn ends_are_told_as_wait_would() {
        let exited = wait_status(libc::CLD_EXITED, 3);
        assert!(libc::WIFEXITED(exited) && libc::WEXITSTATUS(exited) == 3);
        for code in [libc::CLD_KILLED, libc::CLD_DUMPED] {
            let killed = wait_status(code, 9);
            assert!(libc::WIFSIGNALED(killed) && libc::WTERMSIG(killed) == 9);
        }
    }

    #[test]
    fn proc_paths_are_written_without_allocation() {
        assert_eq!(path(0), "/proc/0/oom_score_adj");
        assert_eq!(path(7), "/proc/7/oom_score_adj");
        assert_eq!(path(4_194_304), "/proc/4194304/oom_score_adj");
        assert_eq!(path(u32::MAX), "/proc/4294967295/oom_score_adj");
    }
}
