//! What can be asked for, and how much is measured then.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measure Cofferdam beside the raw platforms, in the same run.
///
/// Ratios and verdicts go to stdout. A missed target is printed, not an error: figures depend on
/// the machine and on what else it does.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Options {
    /// What to measure [default: all].
    #[arg(value_enum)]
    pub(crate) scenarios: Vec<ScenarioName>,
    /// A smoke run of a few seconds: shows that everything works, and measures nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write everything measured to this file too, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// A platform not to compare with. What is not installed is skipped by itself.
    #[arg(long, value_enum)]
    pub(crate) skip: Vec<Peer>,
    /// How many attached streams stall in `control` [default: 500; quick: 20].
    #[arg(long, value_name = "N")]
    pub(crate) stalled: Option<usize>,
    /// How many sandboxes idle in `memory` [default: 100; quick: 5].
    #[arg(long, value_name = "N")]
    pub(crate) sandboxes: Option<usize>,
    /// Directory of `cofferdam` and `cofferdam-gateway`.
    #[arg(long, env = "COFFERDAM_BIN_DIR", value_name = "DIR", hide = true)]
    pub(crate) bin: PathBuf,
    /// Directory of the drivers and the supervisor.
    #[arg(long, env = "COFFERDAM_LIBEXEC", value_name = "DIR", hide = true)]
    pub(crate) libexec: PathBuf,
    /// The program that starts and stops a dockerd of our own.
    #[arg(long, value_name = "PROGRAM", hide = true)]
    pub(crate) xtask: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScenarioName {
    /// A command in a ready sandbox, against fork+exec and `docker exec`.
    Exec,
    /// A command in a fresh sandbox, against bubblewrap and `docker run`.
    OneShot,
    /// A gibibyte out and in, against a pipe and `docker exec`.
    Bulk,
    /// What idle sandboxes cost.
    Memory,
    /// Gateway start to ready.
    Start,
    /// Control calls while bulk streams run and others stall.
    Control,
    /// The docker driver, against `docker run` and `docker exec`.
    Containers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Docker,
    Bwrap,
}

impl Options {
    pub(crate) fn wants(&self, scenario: ScenarioName) -> bool {
        self.scenarios.is_empty() || self.scenarios.contains(&scenario)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let mut sizes = if self.quick {
            Sizes::QUICK
        } else {
            Sizes::FULL
        };
        sizes.stalled = self.stalled.unwrap_or(sizes.stalled);
        sizes.idle_sandboxes = self.sandboxes.unwrap_or(sizes.idle_sandboxes);
        sizes
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) exec_rounds: usize,
    /// Slow lanes run in one round of so many only.
    pub(crate) slow_every: usize,
    pub(crate) batches: usize,
    pub(crate) batch: usize,
    pub(crate) one_shot_rounds: usize,
    pub(crate) bulk_bytes: u64,
    pub(crate) bulk_rounds: usize,
    pub(crate) idle_sandboxes: usize,
    pub(crate) starts: usize,
    pub(crate) control_calls: usize,
    pub(crate) stalled: usize,
    pub(crate) container_rounds: usize,
}

impl Sizes {
    const FULL: Self = Self {
        // Ten samples above the 99th percentile.
        exec_rounds: 1000,
        slow_every: 20,
        batches: 10,
        batch: 320,
        one_shot_rounds: 200,
        bulk_bytes: 1 << 30,
        bulk_rounds: 5,
        idle_sandboxes: 100,
        starts: 20,
        control_calls: 1000,
        stalled: 500,
        container_rounds: 40,
    };
    const QUICK: Self = Self {
        exec_rounds: 10,
        slow_every: 10,
        batches: 1,
        batch: 32,
        one_shot_rounds: 5,
        bulk_bytes: 32 << 20,
        bulk_rounds: 1,
        idle_sandboxes: 5,
        starts: 2,
        control_calls: 30,
        stalled: 20,
        container_rounds: 3,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Options {
        let all = ["bench", "--bin", "b", "--libexec", "l"]
            .iter()
            .chain(arguments);
        Options::try_parse_from(all).unwrap()
    }

    #[test]
    fn without_names_everything_is_wanted() {
        assert!(parse(&[]).wants(ScenarioName::Bulk));
        let some = parse(&["exec", "one-shot"]);
        assert!(some.wants(ScenarioName::OneShot) && !some.wants(ScenarioName::Bulk));
    }

    #[test]
    fn counts_can_be_chosen_in_a_quick_run_too() {
        let sizes = parse(&["--quick", "--stalled", "50"]).sizes();
        assert_eq!((sizes.stalled, sizes.idle_sandboxes), (50, 5));
    }
}
