//! The parent of one sandbox.
use std::process::ExitCode;

#[allow(clippy::print_stderr, reason = "nothing else exists yet")]
fn main() -> ExitCode {
    eprintln!("cofferdam-process-shim: not implemented yet");
    ExitCode::from(125)
}
