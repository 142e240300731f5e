//! Everything that a new process needs to know, laid out before the clone, so that nothing after it
//! allocates.

use std::ffi::{CString, OsStr, c_char};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32};

/// How far the child came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Stage {
    Running = 0,
    Clone = 1,
    Terminal = 2,
    Limits = 3,
    User = 4,
    Privileges = 5,
    Directory = 6,
    Execute = 7,
}

impl Stage {
    pub(crate) fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Running,
            1 => Self::Clone,
            2 => Self::Terminal,
            3 => Self::Limits,
            4 => Self::User,
            5 => Self::Privileges,
            6 => Self::Directory,
            _ => Self::Execute,
        }
    }
}

/// Who the workload is, and how it differs from the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Some id is not the supervisor's own: not being allowed to drop groups is an error then.
    pub(crate) differs: bool,
}

/// The plan of one process as its shim and its child read it. All pointers lead into the
/// [`LaunchPlan`] that owns this.
#[repr(C)]
#[derive(Debug)]
pub(super) struct RawPlan {
    pub(super) report: RawFd,
    pub(super) stdio: [RawFd; 3],
    /// Of the group that bounds cpu time; -1 where there is none.
    pub(super) cpu_threads: RawFd,
    /// These, ascending: the only descriptors that the shim keeps.
    pub(super) kept: [RawFd; 5],
    pub(super) terminal: bool,
    pub(super) user: User,
    pub(super) open_files: libc::rlimit,
    pub(super) oom_score_adj: [u8; 8],
    pub(super) oom_score_adj_bytes: usize,
    pub(super) directory: *const c_char,
    pub(super) candidates: *const *const c_char,
    pub(super) argv: *const *const c_char,
    pub(super) environment: *const *const c_char,
    pub(super) child_stack_top: *mut u8,
    // Written by the child, read by the shim after the child has left this memory; the pid also by
    // the supervisor when the shim was killed.
    pub(super) child_pid: AtomicI32,
    pub(super) failed_stage: AtomicU32,
    pub(super) failed_errno: AtomicI32,
    pub(super) oom_score_adj_refused: AtomicBool,
}

/// What to execute, as whom and where.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) argv: Vec<CString>,
    /// `NAME=value`, each.
    pub(crate) environment: Vec<CString>,
    /// Paths to try in turn: one, or one for each entry of PATH.
    pub(crate) candidates: Vec<CString>,
    pub(crate) directory: CString,
    pub(crate) user: User,
    pub(crate) open_files: libc::rlimit,
    pub(crate) oom_score_adj: i32,
    pub(crate) cpu_threads: Option<Arc<OwnedFd>>,
}

/// Owns a [`RawPlan`] and all that it points to. Must outlive the child's use of it.
#[derive(Debug)]
pub(super) struct LaunchPlan {
    pub(super) raw: Box<RawPlan>,
    _program: Program,
    _tables: [Vec<*const c_char>; 3],
}

// The pointers lead into memory that this value owns and nobody else writes.
#[allow(unsafe_code, reason = "raw pointers to owned, immutable memory")]
// SAFETY: see above; the plan moves between threads only as a whole.
unsafe impl Send for LaunchPlan {}

impl LaunchPlan {
    pub(super) fn new(program: Program, report: RawFd, stdio: [RawFd; 3], terminal: bool) -> Self {
        let table = |strings: &[CString]| -> Vec<*const c_char> {
            strings
                .iter()
                .map(|string| string.as_ptr())
                .chain([ptr::null()])
                .collect()
        };
        let tables = [
            table(&program.candidates),
            table(&program.argv),
            table(&program.environment),
        ];
        let cpu_threads = program.cpu_threads.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        let mut kept = [report, stdio[0], stdio[1], stdio[2], cpu_threads];
        kept.sort_unstable();
        let mut oom_score_adj = [0; 8];
        let digits = program.oom_score_adj.clamp(-1000, 1000).to_string();
        oom_score_adj[..digits.len()].copy_from_slice(digits.as_bytes());
        let raw = Box::new(RawPlan {
            report,
            stdio,
            cpu_threads,
            kept,
            terminal,
            user: program.user,
            open_files: program.open_files,
            oom_score_adj,
            oom_score_adj_bytes: digits.len(),
            directory: program.directory.as_ptr(),
            candidates: tables[0].as_ptr(),
            argv: tables[1].as_ptr(),
            environment: tables[2].as_ptr(),
            child_stack_top: ptr::null_mut(),
            child_pid: AtomicI32::new(0),
            failed_stage: AtomicU32::new(Stage::Running as u32),
            failed_errno: AtomicI32::new(0),
            oom_score_adj_refused: AtomicBool::new(false),
        });
        Self {
            raw,
            _program: program,
            _tables: tables,
        }
    }
}

/// Where a program may be: itself if its name has a slash, else below each entry of `path`.
pub(crate) fn candidates(program: &[u8], path: &[u8], directory: &Path) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    path.split(|&byte| byte == b':')
        .map(|entry| {
            // An empty entry means the working directory, as in every shell.
            let folder = if entry.is_empty() {
                directory
            } else {
                Path::new(OsStr::from_bytes(entry))
            };
            folder
                .join(OsStr::from_bytes(program))
                .into_os_string()
                .into_encoded_bytes()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, path: &str) -> Vec<String> {
        candidates(program.as_bytes(), path.as_bytes(), Path::new("/srv"))
            .into_iter()
            .map(|bytes| String::from_utf8(bytes).expect("plain"))
            .collect()
    }

    #[test]
    fn a_name_with_a_slash_is_not_looked_up() {
        assert_eq!(found("./x", "/bin:/usr/bin"), ["./x"]);
        assert_eq!(found("/bin/x", "/bin:/usr/bin"), ["/bin/x"]);
    }

    #[test]
    fn a_bare_name_is_looked_up_in_order() {
        assert_eq!(found("x", "/usr/bin:/bin"), ["/usr/bin/x", "/bin/x"]);
    }

    #[test]
    fn an_empty_entry_is_the_working_directory() {
        assert_eq!(found("x", "/bin:"), ["/bin/x", "/srv/x"]);
    }
}
