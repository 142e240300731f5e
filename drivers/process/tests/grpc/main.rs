//! The process driver over its socket: what a gateway sees.
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

mod harness;
mod lifecycle;
mod restart;
mod settings;
