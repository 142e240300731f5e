//! What the tests share: the real binary, a scripted gateway, a terminal.

pub(crate) mod fake;
pub(crate) mod pty;

use std::path::Path;
use std::process::{Command, Output};

pub(crate) use fake::Fake;

/// The real binary, in an environment without surprises. No gateway is to be found by it.
pub(crate) fn cofferdam(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm-256color")
        .env("XDG_RUNTIME_DIR", dir)
        .current_dir(dir);
    command
}

impl Fake {
    /// The real binary, which finds this gateway.
    pub(crate) fn cofferdam(&self) -> Command {
        let mut command = cofferdam(self.dir());
        command.env("COFFERDAM_GATEWAY", self.socket());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.cofferdam().args(arguments).output().unwrap()
    }
}

/// The whole of what a run shows, for snapshots.
pub(crate) fn shown(output: &Output) -> String {
    format!(
        "exit: {}\n--- stdout\n{}--- stderr\n{}",
        output
            .status
            .code()
            .map_or("signal".to_owned(), |code| code.to_string()),
        text(&output.stdout),
        text(&output.stderr)
    )
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// The JSON object on the last line.
pub(crate) fn last_object(bytes: &[u8]) -> serde_json::Value {
    let text = text(bytes);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"))
}
