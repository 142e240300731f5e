//! The skeleton driver as a program: the driver itself, or the keeper of one sandbox.

use std::process::ExitCode;

use cofferdam_driver_skeleton::config::Surroundings;
use cofferdam_driver_skeleton::driver::SandboxDriver;
use cofferdam_driver_skeleton::keeper;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == keeper::COMMAND)
    {
        return keeper::main(arguments.next());
    }
    cofferdam_driver_sdk::run(|context| SandboxDriver::new(context, Surroundings::here()))
}
