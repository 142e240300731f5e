//! A driver as `cargo xtask new-driver` writes it, built outside of the workspace.

use std::path::PathBuf;
use std::process::Command;

use crate::binaries;
use crate::home::Home;
use crate::lasting::LastingDriver;
use crate::user::User;

/// What `cargo xtask test` calls it. With a dash, which is an underscore in Rust.
pub const NAME: &str = "acme-cloud";

/// Why there is none, if so.
pub(crate) fn missing() -> Option<String> {
    let program = program();
    (!program.is_file()).then(|| {
        format!(
            "{} is not there; `cargo xtask test` writes that driver and builds it",
            program.display()
        )
    })
}

/// Not started.
pub fn driver() -> LastingDriver {
    let home = Home::new(User::Tester);
    let mut command = Command::new(program());
    command.env("STATE_DIRECTORY", home.join("state"));
    LastingDriver::new(home, command, "the driver is up")
}

fn program() -> PathBuf {
    let built = binaries::target_dir().join("debug");
    built.join(format!("cofferdam-driver-{NAME}"))
}
