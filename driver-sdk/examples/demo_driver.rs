//! The fake driver as a program of its own: a third-party driver in one line, for trying things out.
//!
//! ```sh
//! cargo run -p cofferdam-driver-sdk --features fake --example demo_driver -- --socket ./fake.sock
//! cofferdam-gateway --compute-driver-socket fake=./fake.sock
//! ```

use std::process::ExitCode;

use cofferdam_driver_sdk::fake::FakeDriver;

fn main() -> ExitCode {
    cofferdam_driver_sdk::run(FakeDriver::new)
}
