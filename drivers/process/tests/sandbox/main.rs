//! What holds in a sandbox, probed from inside with a shell, and what is left when it is gone.
//!
//! The same tests run as root and, started again by one of them, as an ordinary user.
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

mod bounds;
mod harness;
mod isolation;
mod lifecycle;
mod ordinary_user;
mod spare;
