//! The supervisor.
use std::process::ExitCode;

#[allow(clippy::print_stderr, reason = "nothing else exists yet")]
fn main() -> ExitCode {
    eprintln!("cofferdam-supervisor: not implemented yet");
    ExitCode::from(125)
}
