//! `cofferdam driver conformance` on a driver that it starts, kills and starts again by itself.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::binaries::Installation;
use crate::home::Home;
use crate::process;
use crate::tree::{End, Tree};
use crate::user::User;
use crate::wait;

/// A minute or two on a quiet machine, most of it deadlines that have to pass.
const SUITE_MAX: Duration = Duration::from_secs(600);

/// What the suite printed, and how it ended.
#[derive(Debug)]
pub struct Trial {
    end: End,
    text: String,
}

impl Trial {
    /// Every tier. `driver` is told its socket by `--socket`; nothing of it may be left afterwards.
    pub fn of(driver: &Command, home: &Home) -> Self {
        let socket = home.join("driver.sock");
        let installation = Installation::built();
        let mut command = Command::new(installation.cli());
        command.args(["driver", "conformance", "--tier", "all", "--socket"]);
        command.arg(&socket);
        // From here on everything is the driver's.
        command.arg("--start-command").arg(driver.get_program());
        command.args(driver.get_args());
        command.arg("--socket").arg(&socket);
        for (key, value) in driver.get_envs() {
            command.env(key, value.expect("a variable with a value"));
        }
        command.env("COFFERDAM_LIBEXEC", &installation.libexec);
        let trial = Self::run(&command, &home.join("conformance"), &installation.launcher);
        assert!(!socket.exists(), "the driver's socket is left");
        trial
    }

    fn run(command: &Command, log: &Path, launcher: &Path) -> Self {
        let mut tree = Tree::start(User::Tester, command, log, launcher);
        let end = tree.wait(SUITE_MAX);
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let end = end.unwrap_or_else(|| panic!("the suite does not end:\n{text}"));
        let left = tree.left_over(wait::PATIENCE);
        let left: Vec<_> = left.into_iter().map(process::describe).collect();
        assert!(left.is_empty(), "left over: {}\n{text}", left.join(", "));
        Self { end, text }
    }

    /// No case failed, and these were tried.
    #[track_caller]
    pub fn passed(&self, cases: &[&str]) {
        assert_eq!(self.end, End::Code(0), "\n{}", self.text);
        for case in cases {
            let wanted = ["PASS", case];
            let mut lines = self.text.lines();
            let has_passed = lines.any(|line| line.split_whitespace().take(2).eq(wanted));
            assert!(has_passed, "{case} has not passed:\n{}", self.text);
        }
    }
}
