//! The SDK's fault-injecting driver as a program, for the suite's own tests: a driver that is started
//! by a command, and killed. It isolates nothing.

use std::process::ExitCode;

fn main() -> ExitCode {
    cofferdam_driver_sdk::faults::run()
}
