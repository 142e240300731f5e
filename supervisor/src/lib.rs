//! PID 1 of a sandbox: serves processes, files and tunnels to the gateway over one byte stream.
//!
//! ```text
//!            gateway
//!               │ one byte stream (callback), hello, then HTTP/2 (serve)
//!  ┌────────────┴─────────── supervisor ─────────────────────────────┐
//!  │ service ──► process::Table ──► Process ◄── its task (drive)     │
//!  │    │            spool (output)      ▲           │ pipes, pty    │
//!  │    ├──► files, archives (threads)   │ reap      ▼               │
//!  │    └──► tunnels                     └────── shim ──► workload   │
//!  └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! One thread runs everything but file operations and killing. Processes belong to the supervisor,
//! not to the session: a gateway that comes back finds them, and their output, where it left off.

mod args;
mod bootstrap;
mod callback;
mod core;
mod files;
mod hello;
mod init;
mod killer;
mod log;
mod oom;
mod output;
mod process;
mod pty;
mod readiness;
mod reap;
mod run;
mod serve;
mod service;
mod signal;
mod status;
mod sys;
mod token;
mod tree;
mod watch;

use std::error::Error;
use std::ffi::OsString;

use self::args::{Args, USAGE};
use self::log::log;

/// Could not begin; the log says why.
const EXIT_CANNOT_START: u8 = 125;

/// The whole program, given its arguments without its name. The result is the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let (callback, bootstrap) = match args::parse(arguments) {
        Ok(Args::Run {
            callback,
            bootstrap,
        }) => (callback, bootstrap),
        Ok(Args::Version) => {
            let line = concat!("cofferdam-supervisor ", env!("CARGO_PKG_VERSION"), "\n");
            // Whoever asked is gone if this fails.
            let _ = rustix::io::write(rustix::stdio::stdout(), line.as_bytes());
            return 0;
        }
        Err(error) => {
            log!("{error}");
            log!("{USAGE}");
            return EXIT_CANNOT_START;
        }
    };
    match run::run(&callback, &bootstrap) {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            log!("{text}");
            EXIT_CANNOT_START
        }
    }
}
