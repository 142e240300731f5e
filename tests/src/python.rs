//! The example driver in Python, as its README says to start it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::conformance::Trial;
use crate::home::Home;
use crate::tree::{End, Tree};
use crate::user::User;
use crate::{binaries, process, wait};

/// Made by `cargo xtask engines`.
const ENVIRONMENT: &str = "python-venv";

/// Why the driver cannot be started here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    let made_from = fs::read(environment().join("requirements.txt")).ok();
    let pinned = fs::read(example().join("requirements.txt")).expect("read what is pinned");
    (made_from.as_ref() != Some(&pinned)).then(|| {
        let environment = environment();
        format!(
            "{} does not hold what the example driver in Python needs; `cargo xtask engines` makes it",
            environment.display()
        )
    })
}

/// The driver, in a directory of its own. It may be started, killed and started again; its sandboxes
/// are below the launchers of all its processes.
#[derive(Debug)]
pub struct PythonDriver {
    /// The last is the one that runs.
    trees: Vec<Tree>,
    home: Home,
}

impl PythonDriver {
    /// With its stubs generated, not started.
    pub fn prepare() -> Self {
        let home = Home::new(User::Tester);
        generate(&home.join("gen"));
        Self {
            trees: Vec::new(),
            home,
        }
    }

    /// As the user who runs the tests; also where it was killed.
    pub fn start(&mut self) {
        let mut command = self.command();
        command.arg("--socket").arg(self.socket());
        let launcher = binaries::own("cofferdam-test-launch");
        // A socket of the one before may still be there, so that is no sign.
        let started = self.log().matches(SERVES).count();
        let tree = Tree::start(User::Tester, &command, &self.log_path(), &launcher);
        wait::until_true("the driver serves", || {
            assert_eq!(tree.end(), None, "the driver ended:\n{}", self.log());
            self.log().matches(SERVES).count() > started
        });
        self.trees.push(tree);
    }

    /// What the conformance suite says of it. It starts the driver itself.
    pub fn try_all(&self) -> Trial {
        Trial::of(&self.command(), &self.home)
    }

    /// For a gateway that starts it itself: a program without arguments.
    pub fn program(&self) -> PathBuf {
        let command = self.command();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        let stubs = self.home.join("gen");
        let script = format!(
            "#!/bin/sh\nPYTHONPATH={} exec {}\n",
            stubs.display(),
            words.join(" ")
        );
        let path = self.home.file(User::Tester, "python-driver", &script);
        binaries::open_to_all(&path);
        path
    }

    fn command(&self) -> Command {
        let mut command = Command::new(environment().join("bin/python"));
        command.arg(example().join("main.py"));
        command.arg("--state").arg(self.state());
        command.env("PYTHONPATH", self.home.join("gen"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home.path());
        command
    }

    pub fn socket(&self) -> PathBuf {
        self.home.join("driver.sock")
    }

    pub fn state(&self) -> PathBuf {
        self.home.join("state")
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
        for gateway in fs::read_dir(self.state()).expect("list its state") {
            let gateway = gateway.expect("list its state").path();
            let is_empty = fs::read_dir(&gateway).is_ok_and(|mut inside| inside.next().is_none());
            let is_note = gateway.is_file();
            assert!(is_empty || is_note, "{} is left", gateway.display());
        }
        assert!(!self.log().contains("Traceback"), "{}", self.log());
    }

    fn tree(&self) -> &Tree {
        self.trees.last().expect("it was started")
    }
}

/// What it says when it can be called.
const SERVES: &str = "serving, incarnation";

/// The one command of the README.
fn generate(stubs: &Path) {
    fs::create_dir(stubs).expect("create a directory");
    let out = |what: &str| format!("--{what}_out={}", stubs.display());
    let ran = Command::new(environment().join("bin/python"))
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(repository().join("proto"))
        .args([out("python"), out("pyi"), out("grpc_python")])
        .arg("cofferdam/compute/v1/compute_driver.proto")
        .output()
        .expect("run protoc");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "generate the stubs: {said}");
}

fn environment() -> PathBuf {
    binaries::target_dir().join(ENVIRONMENT)
}

fn example() -> PathBuf {
    repository().join("docs/examples/python-driver")
}

fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("a directory above").to_path_buf()
}
