//! A third party's driver whose sandboxes outlive it: it may be started, killed and started again.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::conformance::Trial;
use crate::home::Home;
use crate::tree::{End, Tree};
use crate::user::User;
use crate::{binaries, process, wait};

/// The driver, in a directory of its own. Its sandboxes are below the launchers of all its
/// processes.
#[derive(Debug)]
pub struct LastingDriver {
    /// The last is the one that runs.
    trees: Vec<Tree>,
    home: Home,
    command: Command,
    /// What it says when it can be called.
    serves: &'static str,
}

impl LastingDriver {
    /// Not started. `command` lacks only `--socket`; what the driver keeps must be in `state` of
    /// this home.
    pub fn new(home: Home, mut command: Command, serves: &'static str) -> Self {
        command.env("PATH", "/usr/bin:/bin");
        command.env("HOME", home.path());
        Self {
            trees: Vec::new(),
            home,
            command,
            serves,
        }
    }

    /// As the user who runs the tests; also where it was killed.
    pub fn start(&mut self) {
        let mut command = Command::new(self.command.get_program());
        command.args(self.command.get_args());
        for (key, value) in self.command.get_envs() {
            command.env(key, value.expect("a variable with a value"));
        }
        command.arg("--socket").arg(self.socket());
        let launcher = binaries::own("cofferdam-test-launch");
        // A socket of the one before may still be there, so that is no sign.
        let started = self.log().matches(self.serves).count();
        let tree = Tree::start(User::Tester, &command, &self.log_path(), &launcher);
        wait::until_true("the driver serves", || {
            assert_eq!(tree.end(), None, "the driver ended:\n{}", self.log());
            self.log().matches(self.serves).count() > started
        });
        self.trees.push(tree);
    }

    /// What the conformance suite says of it. It starts the driver itself.
    pub fn try_all(&self) -> Trial {
        Trial::of(&self.command, &self.home)
    }

    pub fn command(&self) -> &Command {
        &self.command
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn socket(&self) -> PathBuf {
        self.home.join("driver.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn kill(&self) {
        self.tree().signal(Signal::KILL);
        assert_eq!(self.tree().wait(wait::PATIENCE), Some(End::Signal(9)));
    }

    /// Every process that descends from a driver of this test.
    pub fn members(&self) -> Vec<u32> {
        self.trees.iter().flat_map(Tree::members).collect()
    }

    /// Those of them whose arguments hold this text.
    pub fn members_with(&self, text: &str) -> Vec<u32> {
        let mut found = self.members();
        found.retain(|pid| process::command_line(*pid).contains(text));
        found
    }

    /// Ends it, after its gateway; nothing may be left of its sandboxes.
    pub fn finish(mut self) {
        if let Some(tree) = self.trees.last().filter(|tree| tree.end().is_none()) {
            tree.signal(Signal::TERM);
            assert_eq!(tree.wait(wait::PATIENCE), Some(End::Code(0)));
        }
        assert!(!self.socket().exists(), "its socket is left");
        for tree in &mut self.trees {
            let left = tree.left_over(wait::PATIENCE);
            let left: Vec<_> = left.into_iter().map(process::describe).collect();
            assert!(left.is_empty(), "left over: {}", left.join(", "));
        }
        for entry in fs::read_dir(self.home.join("state")).expect("list its state") {
            let entry = entry.expect("list its state").path();
            let is_empty = fs::read_dir(&entry).is_ok_and(|mut inside| inside.next().is_none());
            let is_note = entry.is_file();
            assert!(is_empty || is_note, "{} is left", entry.display());
        }
        for word in ["Traceback", "panicked"] {
            assert!(!self.log().contains(word), "{}", self.log());
        }
    }

    fn tree(&self) -> &Tree {
        self.trees.last().expect("it was started")
    }
}
