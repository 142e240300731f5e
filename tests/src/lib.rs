//! The harness of the end-to-end tests: real programs, real sandboxes, the host looked at from
//! outside.
//!
//! ```text
//! gateway.rs   a gateway for one test, and what must be true after it      leaks.rs
//! cli.rs       the command-line tool: run, piped, in a terminal (pty.rs)
//! client.rs    the callers' protocol itself
//! driver.rs    a third party's driver; one that breaks on purpose       faulty.rs
//! lasting.rs   one whose sandboxes outlive it                              python.rs, skeleton.rs
//! conformance.rs  the suite on a driver that it starts itself
//! tree.rs      a program with everything that descends from it             process.rs
//! binaries.rs  where the programs are      user.rs    who runs them        home.rs
//! disk.rs      a disk that can be filled up
//! engine.rs    what the host must have     cgroup.rs  limits for others    wait.rs
//! container.rs container engines that were given, looked at from outside     own_docker.rs  registry.rs
//! bin/         programs of the tests: a launcher, a prober inside sandboxes, a third party's driver
//! ```
//!
//! A test that cannot run here says why and passes; with `COFFERDAM_REQUIRE_ENGINES` it fails.

pub mod binaries;
pub mod cgroup;
pub mod cli;
pub mod client;
pub mod conformance;
pub mod container;
pub mod disk;
pub mod driver;
pub mod engine;
pub mod faulty;
pub mod gateway;
pub mod home;
pub mod lasting;
pub mod leaks;
pub mod own_docker;
pub mod process;
pub mod pty;
pub mod python;
pub mod registry;
pub mod skeleton;
pub mod tree;
pub mod user;
pub mod wait;

pub use gateway::TestGateway;
pub use user::User;

/// A name that nothing else has.
pub fn random_name() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("randomness");
    hex::encode(bytes)
}

/// An argument for `sleep` that is longer than any test, and by which its process is found.
pub fn long_time() -> String {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("randomness");
    format!("86400.{:010}", u32::from_le_bytes(bytes))
}
