//! The state directory of one sandbox: names, and who may write what.
//!
//! ```text
//! <state root>/<sandbox id>/      0700  driver
//!   sandbox.json                        driver: what was made for it (SandboxRecord)
//!   shim.json                           shim, before it gives up the driver's identity (ProcessId)
//!   run/                          0700  the sandbox's own first host id
//!     shim.sock                         control socket
//!     run.json                          the init that runs now (RunRecord)
//!     exit.json                         how the last init ended (ExitRecord)
//!     console.log, console.log.1        what the supervisor printed
//! ```
//!
//! What is in `run/` is written by a process that lives inside the sandbox's user namespace, so
//! the driver reads it as claims: bounded, without following links, and verified.

use std::path::{Path, PathBuf};

/// What the driver made for the sandbox.
pub const SANDBOX_RECORD: &str = "sandbox.json";
/// Who the shim is.
pub const SHIM_RECORD: &str = "shim.json";
/// The directory the shim may write.
pub const RUN_DIR: &str = "run";
/// The control socket, in [`RUN_DIR`].
pub const CONTROL_SOCKET: &str = "shim.sock";
/// The init that runs now, in [`RUN_DIR`].
pub const RUN_RECORD: &str = "run.json";
/// How the last init ended, in [`RUN_DIR`].
pub const EXIT_RECORD: &str = "exit.json";
/// What the supervisor printed last, in [`RUN_DIR`].
pub const CONSOLE_LOG: &str = "console.log";
/// What it printed before that, in [`RUN_DIR`].
pub const CONSOLE_LOG_OLD: &str = "console.log.1";

/// No record is longer.
pub const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// The console keeps at least this much, and at most twice as much.
pub const CONSOLE_BYTES_MAX: u64 = 128 * 1024;

/// The shim's own directory.
pub fn run_dir(state_dir: &Path) -> PathBuf {
    state_dir.join(RUN_DIR)
}
