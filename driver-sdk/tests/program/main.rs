//! A driver as a program: how it is started, who may call, how it ends. And what the fake driver
//! does with a supervisor that ends.
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

mod example;
mod fake;
mod harness;
mod listening;
mod peers;
