//! `cargo xtask bench`: not written yet.
//!
//! It will compare sandboxes with the raw platform in the same run (fork+exec, bubblewrap, an
//! engine's own CLI) and report ratios. `engines::start_docker` provides a private dockerd.

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Compares with the raw platforms in the same run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_args: Args) -> Result<ExitCode> {
    bail!("there are no benchmarks yet")
}
