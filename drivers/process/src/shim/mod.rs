//! The shim: one small single-threaded process for each sandbox, between the driver and the
//! sandbox's PID 1.
//!
//! ```text
//! driver ──exec──► outer (the driver's identity: clones; with the plan: opens paths, maps ids, exits)
//!                    └─clone3(user mnt ipc uts net)─► shim (the sandbox's identity, host pid ns)
//!                                                      │  builds the root, then serves shim.sock
//!                                                      └─clone3(pid)─► init: /proc, Landlock,
//!                                                         seccomp, execveat ──► supervisor
//! ```
//!
//! The shim stays outside the pid namespace and inside all the others. So it cannot be seen from
//! the sandbox, yet the mounts (and the workspace) live as long as it does and survive a stop and
//! start of the init. When the shim dies, PDEATHSIG takes the init along, and with the init its
//! whole pid namespace. When the deadline passes it kills the init, leaves a record and ends,
//! whoever else is dead by then.
//!
//! It knows nothing of gRPC, of the gateway, or of what a workload is.

mod caps;
mod console;
mod failure;
mod handles;
mod init;
pub(crate) mod landlock;
mod lifecycle;
mod mask;
mod namespaces;
mod outer;
pub(crate) mod proc;
mod records;
mod rootfs;
mod seccomp;
mod serve;
mod sys;

/// The program: reads a plan from standard input and makes a sandbox of it. It takes no
/// arguments; given some it only fails, which makes it a supervisor good enough for a trial.
/// The result is the exit code.
pub fn main(has_arguments: bool) -> u8 {
    if has_arguments {
        return 2;
    }
    sys::ignore_broken_pipes();
    outer::run()
}
