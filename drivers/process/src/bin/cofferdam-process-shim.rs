//! The process driver's shim: stands between the driver and one sandbox's PID 1. See
//! `cofferdam_driver_process::shim`.
//!
//! It begins where the C runtime calls it: what Rust does before `main` costs time and memory in
//! every sandbox, and the one thing of it that is wanted the shim does itself.
#![no_main]
#![allow(unsafe_code, reason = "the C runtime's calling convention")]

use std::ffi::{c_char, c_int};

/// Called once, by the C runtime.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, _argv: *const *const c_char) -> c_int {
    c_int::from(cofferdam_driver_process::shim::main(argc > 1))
}
