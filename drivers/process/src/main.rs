//! The process driver as a program; see the library.

use std::process::ExitCode;

use cofferdam_driver_process::config::Surroundings;
use cofferdam_driver_process::driver::ProcessDriver;

fn main() -> ExitCode {
    cofferdam_driver_sdk::run(|context| ProcessDriver::new(context, Surroundings::here()))
}
