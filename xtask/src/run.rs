//! `cargo xtask run -- COMMAND...`: from a clone to a sandboxed command, in one line.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::binaries::{self, Build};
use crate::workspace;

/// Builds what is needed, then becomes `cofferdam run -- COMMAND...`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Optimise gateway, CLI and drivers too. The supervisor always is.
    #[arg(long)]
    release: bool,

    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Returns only when it fails before the command starts: afterwards this process *is* the CLI, so
/// terminal, signals and exit code need no passing on.
pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let collected = binaries::build(if args.release {
        Build::Release
    } else {
        Build::Debug
    })?;
    let mut command = Command::new(collected.bin.join("cofferdam"));
    command.args(["run", "--"]).args(&args.command);
    collected.point(&mut command);
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", workspace::show(&command)))
}
