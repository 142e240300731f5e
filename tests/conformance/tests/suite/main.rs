//! The suite's own tests: it passes where it should, and fails where it must, with the right case.

mod fake;
mod process;
mod support;
