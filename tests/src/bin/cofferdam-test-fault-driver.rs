//! A driver that breaks on purpose, where the tests find it: see `cofferdam_driver_sdk::faults`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cofferdam_driver_sdk::faults::run()
}
