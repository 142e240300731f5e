//! Chores of this repository: `cargo xtask <task>`. One task per file.
//!
//! Nothing here is part of the product; everything here works from a fresh clone with nothing
//! but a Rust toolchain and a C compiler.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

mod bench;
mod binaries;
mod codegen;
mod engines;
mod new_driver;
mod run;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the Cofferdam repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build what is needed, then run a command in a sandbox: `cofferdam run -- COMMAND...`.
    Run(run::Args),
    /// Build, check and test everything.
    Test(test::Args),
    /// Turn the .proto files into proto/src/gen.
    Codegen(codegen::Args),
    /// Check the invariants that a grep or the dependency graph can see.
    Tidy,
    /// Show, and as root install, the platforms that tests and benchmarks use.
    Engines(engines::Args),
    /// Write a driver crate of your own to begin with.
    NewDriver(new_driver::Args),
    /// Compare with the raw platforms and print ratios.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Run(args) => run::main(args),
        Task::Test(args) => test::main(args),
        Task::Codegen(args) => codegen::main(args),
        Task::Tidy => tidy::main(),
        Task::Engines(args) => engines::main(args),
        Task::NewDriver(args) => new_driver::main(args),
        Task::Bench(args) => bench::main(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        // The CLI's own code for "our fault, not the command's".
        ExitCode::from(125)
    })
}
