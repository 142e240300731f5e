//! The cofferdam command.
use std::process::ExitCode;

#[allow(clippy::print_stderr, reason = "nothing else exists yet")]
fn main() -> ExitCode {
    eprintln!("cofferdam: not implemented yet");
    ExitCode::from(125)
}
