//! `cargo xtask codegen`: the .proto files become `proto/src/gen`, without protoc.
//!
//! The compiler hides behind the feature `codegen`; without it this task starts itself again with
//! the feature on. Output is deterministic, so `--check` can compare byte by byte.

#[cfg(feature = "codegen")]
mod compile;
#[cfg(feature = "codegen")]
mod redact;

use std::process::ExitCode;

use anyhow::Result;

/// Generates proto/src/gen from proto/cofferdam/**/*.proto.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if the committed code differs from what would be generated.
    #[arg(long)]
    pub(crate) check: bool,
}

#[cfg(feature = "codegen")]
pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let differing = compile::run(&crate::workspace::root().join("proto"), args.check)?;
    for path in &differing {
        let verb = if args.check { "differs" } else { "written" };
        eprintln!("codegen: {verb}: {}", path.display());
    }
    if args.check && !differing.is_empty() {
        eprintln!(
            "codegen: the generated code is not what the .proto files say; run `cargo xtask codegen`"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "codegen"))]
pub(crate) fn main(args: Args) -> Result<ExitCode> {
    use crate::workspace;

    let mut build = workspace::cargo();
    build.args(["build", "--package", "xtask", "--features", "codegen"]);
    // A directory of its own: the running binary must not be replaced by the other feature set.
    let target = workspace::target_dir()?.join("xtask-codegen");
    build.arg("--target-dir").arg(&target);
    workspace::cargo_build(
        "building the protobuf compiler (only when it is needed)",
        &mut build,
    )?;

    let mut again = std::process::Command::new(target.join("debug/xtask"));
    again.arg("codegen").args(args.check.then_some("--check"));
    let status = again.status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
