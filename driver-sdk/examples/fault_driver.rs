//! A driver that breaks on purpose: see `cofferdam_driver_sdk::faults`.
//!
//! ```sh
//! cargo run -p cofferdam-driver-sdk --features fake --example fault_driver -- \
//!     --socket ./odd.sock --control ./odd.control --variant wrong_order
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    cofferdam_driver_sdk::faults::run()
}
