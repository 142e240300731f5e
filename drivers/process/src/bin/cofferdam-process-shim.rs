//! The process driver's shim: stands between the driver and one sandbox's PID 1. See
//! `cofferdam_driver_process::shim`.

fn main() -> std::process::ExitCode {
    cofferdam_driver_process::shim::main()
}
