//! The skeleton driver of Cofferdam. **It isolates nothing yet**: a sandbox is the gateway's
//! supervisor as a plain process, in a directory of its own, with the rights of the driver.
//!
//! What is complete is everything else that a driver has to get right; see the files for how.
//!
//! ```text
//!   driver    the contract: finds the sandbox, asks the platform, answers
//!   config    settings and driver_config, each with its JSON Schema
//!   plan      from a spec to what the platform is asked for. Pure
//!   record    what is remembered on disk, and the handle that the gateway keeps
//!   sandbox   one sandbox: looked at, described in the contract's words, reported in order
//!   watch     follows each sandbox, so that every change is told
//!   console   what a sandbox's supervisor has printed
//!   platform  launches, signals, observes, destroys           ◄── REPLACE with your platform
//!   keeper    the program that keeps one sandbox              ◄── REPLACE, or drop
//!   process   processes that cannot be mistaken for others    ◄── goes with them
//! ```
//!
//! To make a real driver of it, search for `REPLACE`.

pub mod config;
mod console;
pub mod driver;
pub mod keeper;
mod plan;
mod platform;
mod process;
mod record;
mod sandbox;
mod watch;
