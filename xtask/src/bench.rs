//! `cargo xtask bench`: builds everything optimised, then becomes the benchmark program.
//!
//! What is measured, and with what it is compared, is said by `bench/`; this task only brings the
//! pieces together. The program calls back `xtask engines start-docker` for a dockerd of its own.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::binaries::{self, Build};
use crate::workspace;

const PROGRAM: &str = "cofferdam-bench";

/// Compares with the raw platforms in the same run; `cargo xtask bench --help` says what.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Arguments of the benchmark program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    passed: Vec<OsString>,
}

/// Returns only when something cannot be built: afterwards this process *is* the program, so that
/// Ctrl-C reaches the one who has to clean up.
pub(crate) fn main(args: Args) -> Result<ExitCode> {
    // All in one go, so that they share one set of features and nothing is built twice.
    let packages = binaries::PACKAGES.iter().chain([&PROGRAM]);
    workspace::cargo_build(
        "building everything optimised (some minutes the first time)",
        workspace::cargo()
            .args(["build", "--release"])
            .args(packages.flat_map(|package| ["--package", package])),
    )?;
    let collected = binaries::build(Build::Release)?;
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(workspace::target_dir()?.join("release").join(PROGRAM));
    command.arg("--xtask").arg(own).args(&args.passed);
    collected.point(&mut command);
    if let Some(revision) = revision() {
        command.env("COFFERDAM_REVISION", revision);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", workspace::show(&command)))
}

/// What is measured, as git names it; none outside a repository.
fn revision() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(workspace::root())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
