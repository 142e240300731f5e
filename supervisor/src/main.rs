//! The supervisor's program; see the library.
//!
//! It begins where the C runtime calls it. Rust's own start-up (a handler for stack overflows, for
//! which it reads the list of all mappings) costs time and memory in every sandbox, and is of no use
//! here: an overflow ends the process either way, at the guard page.
#![no_main]
#![allow(unsafe_code, reason = "the C runtime's calling convention")]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;

/// Called once, by the C runtime.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let words = (1..usize::try_from(argc).unwrap_or(0)).map(|at| {
        // SAFETY: the runtime passes `argc` strings, which live as long as the process.
        let word = unsafe { CStr::from_ptr(*argv.add(at)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    });
    c_int::from(cofferdam_supervisor::main(words))
}
