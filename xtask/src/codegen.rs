//! `cargo xtask codegen`: builds the protobuf compiler (`xtask/codegen`) and runs it.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workspace;

/// Generates proto/src/gen from proto/cofferdam/**/*.proto.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if the committed code differs from what would be generated.
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let mut build = workspace::cargo();
    build.args([
        "build",
        "--package",
        "xtask",
        "--features",
        "codegen",
        "--bin",
        "xtask-codegen",
    ]);
    workspace::cargo_build(
        "building the protobuf compiler (only when it is needed)",
        &mut build,
    )?;

    let program = workspace::target_dir()?.join("debug/xtask-codegen");
    let mut compiler = Command::new(program);
    compiler
        .arg(workspace::root().join("proto"))
        .args(args.check.then_some("--check"));
    let status = compiler
        .status()
        .with_context(|| format!("start {}", workspace::show(&compiler)))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
