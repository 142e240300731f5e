//! Chores of this repository.
use std::process::ExitCode;

#[allow(clippy::print_stderr, reason = "nothing else exists yet")]
fn main() -> ExitCode {
    eprintln!("xtask: not implemented yet");
    ExitCode::from(125)
}
