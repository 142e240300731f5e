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

    /// No case failed, and exactly these cases, and groups of cases, could not be tried.
    #[track_caller]
    pub fn passed_all_but(&self, skipped: &[&str]) {
        assert_eq!(self.end, End::Code(0), "\n{}", self.text);
        let all = self.told(&["PASS", "FAIL", "SKIP"]);
        let told = self.told(&["SKIP"]);
        assert_eq!(told, selected(&all, skipped), "\n{}", self.text);
        assert!(told.len() < all.len(), "nothing was tried:\n{}", self.text);
    }

    /// The cases that ended in one of these ways, in order.
    fn told(&self, outcomes: &[&str]) -> Vec<&str> {
        let lines = self.text.lines();
        let cases = lines.filter_map(|line| {
            let (outcome, rest) = line.split_once("  ")?;
            // What follows the id is the time it took, or the reason.
            let id = rest.split([' ', ':']).next()?;
            outcomes.contains(&outcome).then_some(id)
        });
        cases.collect()
    }
}

/// Those of all cases that are named by one of the selectors, each of which is a case's id or a group
/// of cases: `command.run`.
///
/// # Panics
/// A selector that names nothing would hide that its cases are there no more.
#[track_caller]
pub fn selected<'a>(all: &[&'a str], selectors: &[&str]) -> Vec<&'a str> {
    let is_in = |case: &str, selector: &str| {
        let rest = case.strip_prefix(selector);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for selector in selectors {
        let names_any = all.iter().any(|case| is_in(case, selector));
        assert!(names_any, "{selector} names none of {all:?}");
    }
    let mut selected = all.to_vec();
    selected.retain(|case| selectors.iter().any(|selector| is_in(case, selector)));
    selected
}
