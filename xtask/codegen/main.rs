//! The compiler behind `cargo xtask codegen`: the .proto files become `proto/src/gen`, without
//! protoc. Output is deterministic, so `--check` can compare byte by byte.
#![allow(clippy::print_stderr, reason = "a command-line tool")]

mod compile;
mod redact;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (proto_dir, check) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [dir] => (dir, false),
        [dir, "--check"] => (dir, true),
        _ => bail!("usage: xtask-codegen PROTO_DIR [--check]"),
    };
    let differing = compile::run(Path::new(proto_dir), check).context("generate code")?;
    for path in &differing {
        let verb = if check { "differs" } else { "written" };
        eprintln!("codegen: {verb}: {}", path.display());
    }
    if check && !differing.is_empty() {
        eprintln!("codegen: this is not what the .proto files say; run `cargo xtask codegen`");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
