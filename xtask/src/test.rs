//! `cargo xtask test`: everything that must hold before a change lands, stage by stage.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::binaries::{self, Build};
use crate::engines::Own;
use crate::{new_driver, tidy, workspace};

/// Builds the binaries and runs all tests against them, plus the checks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail instead of skipping when an engine that a test needs is missing.
    #[arg(long)]
    require_engines: bool,

    /// Run rustfmt and clippy too. Always so when CI=true.
    #[arg(long)]
    lint: bool,

    /// Only tests whose name contains this, as in `cargo test FILTER`; skips the other stages.
    filter: Option<String>,

    /// Arguments for the test binaries, after `--`.
    #[arg(last = true)]
    passed: Vec<String>,
}

pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let lint = args.lint || is_ci();
    let mut stages = Stages::default();
    if args.filter.is_none() {
        if lint {
            stages.run("format", || {
                workspace::check(workspace::cargo().args(["fmt", "--all", "--check"]))
            })?;
        }
        stages.run("tidy", tidy::check)?;
        if lint {
            stages.run("clippy", clippy)?;
            stages.run("docs", docs)?;
        }
    }
    // Two tests try it, of which a filter seldom means one.
    if args
        .filter
        .as_ref()
        .is_none_or(|filter| "new_driver".contains(filter.as_str()))
    {
        stages.run("new driver", new_driver::build_for_tests)?;
    }
    let mut collected = None;
    stages.run("build", || {
        collected = Some(binaries::build(Build::Tests)?);
        Ok(())
    })?;
    stages.run("test", || {
        let mut command = workspace::cargo();
        command.args(["test", "--workspace", "--no-fail-fast"]);
        command.args(&args.filter);
        if !args.passed.is_empty() {
            command.arg("--").args(&args.passed);
        }
        if let Some(collected) = &collected {
            collected.point(&mut command);
        }
        let engines = Own::start(args.require_engines)?;
        engines.point(&mut command);
        if args.require_engines {
            command.env("COFFERDAM_REQUIRE_ENGINES", "1");
        }
        workspace::check(&mut command)
    })?;
    if args.filter.is_none() {
        stages.run("codegen", || {
            let own = [
                "test",
                "--package",
                "xtask",
                "--features",
                "codegen",
                "--bin",
                "xtask-codegen",
            ];
            workspace::check(workspace::cargo().args(own))
        })?;
    }
    stages.print();
    Ok(ExitCode::SUCCESS)
}

fn clippy() -> Result<()> {
    workspace::check(workspace::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]))
}

/// What driver authors read, the contract included: nothing undocumented, no link that leads nowhere.
fn docs() -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["doc", "--no-deps"]);
    command.args(["--package", "cofferdam-driver-sdk"]);
    command.args(["--package", "cofferdam-proto"]);
    workspace::check(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// What ran, and how long it took.
#[derive(Debug, Default)]
struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    fn run(&mut self, name: &'static str, stage: impl FnOnce() -> Result<()>) -> Result<()> {
        eprintln!("==> {name}");
        let start = Instant::now();
        let result = stage();
        self.0.push((name, start.elapsed()));
        if result.is_err() {
            self.print();
        }
        result.map_err(|error| error.context(format!("stage {name}")))
    }

    fn print(&self) {
        for (name, took) in &self.0 {
            eprintln!("==> {name:<10} {:>6.1} s", took.as_secs_f64());
        }
    }
}
