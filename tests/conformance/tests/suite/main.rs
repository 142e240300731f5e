//! The suite's own tests: it passes where it should, and fails where it must, with the right case.
#![allow(
    clippy::print_stdout,
    reason = "a test that fails shows what the suite said"
)]

mod broken;
mod containers;
mod example;
mod fake;
mod process;
mod support;
mod tiers;
mod twisted;
