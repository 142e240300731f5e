//! The supervisor's program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cofferdam_supervisor::main(std::env::args_os().skip(1))
}
