//! Measures Cofferdam beside the raw platforms, in the same run: `cargo xtask bench`.
//!
//! ```text
//!  options ─► bench: gateway, dockerd, helper ─► scenarios ─► report ─► stdout, JSON
//!                    raw, docker, client, procfs ◄──┘
//! ```
//!
//! It is a caller like any other: it knows the contract and the binaries, and nothing of how they
//! are made. No figure is ever a test's verdict; a run only fails when something does not work.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

mod bench;
mod client;
mod docker;
mod gateway;
mod janitor;
mod machine;
mod options;
mod print;
mod procfs;
mod raw;
mod report;
mod scenarios;
mod stats;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::bench::Bench;
use crate::machine::Machine;
use crate::options::Options;
use crate::report::{Report, Scenario};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(raw::HELPER) {
        // Whoever asked is gone when this fails.
        return raw::serve_as_helper().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if std::env::args().nth(1).as_deref() == Some(janitor::JANITOR) {
        return janitor::serve(std::env::args_os().skip(2));
    }
    match measure(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False if a scenario could not be carried out.
// One thread, as a caller's event loop has: with more, every answer would cross from one to another.
#[tokio::main(flavor = "current_thread")]
async fn measure(options: &Options) -> Result<bool> {
    let mut report = Report::new(Machine::describe(), options.quick);
    println!("{}", report.machine.headline());
    if report.machine.is_busy() {
        println!("others use this machine now: every figure is worse than it could be");
    }
    eprintln!("==> starting a gateway and the platforms to compare with");
    let mut bench = Bench::start(options).await?;
    report.machine.docker = bench
        .docker
        .as_ref()
        .ok()
        .map(|docker| docker.version.clone());
    let interrupted = tokio::select! {
        () = all(&mut bench, options, &mut report) => false,
        _ = tokio::signal::ctrl_c() => true,
    };
    eprintln!("==> cleaning up");
    let finished = bench.finish().await;
    if interrupted {
        bail!("interrupted");
    }
    report.machine.load_at_end = machine::load();
    print!("{}", print::verdicts(&report));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).context("encode the report")?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    finished?;
    Ok(report
        .scenarios
        .iter()
        .all(|scenario| scenario.error.is_none()))
}

async fn all(bench: &mut Bench, options: &Options, report: &mut Report) {
    for name in scenarios::ALL.iter().filter(|name| options.wants(**name)) {
        let mut scenario: Scenario = scenarios::empty(*name);
        println!("== {}: {}", scenario.name, scenario.title);
        let start = Instant::now();
        if let Err(error) = scenarios::run(bench, *name, &mut scenario).await {
            scenario.error = Some(format!("{error:#}"));
            eprintln!("the gateway's log ends:\n{}", bench.gateway.log_tail());
        }
        scenario.took_seconds = start.elapsed().as_secs_f64();
        println!("{}", print::scenario(&scenario));
        report.scenarios.push(scenario);
    }
}
