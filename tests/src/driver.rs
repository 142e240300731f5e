//! A third party's driver, started by hand.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::home::Home;
use crate::tree::{End, Tree};
use crate::user::User;
use crate::{binaries, wait};

/// A running driver. Its sandboxes are processes below it, and end with it.
#[derive(Debug)]
pub struct TestDriver {
    tree: Tree,
    socket: PathBuf,
    log: PathBuf,
}

impl TestDriver {
    /// As the user who runs the tests, in the home of the gateway that will use it.
    pub fn start(home: &Home, name: &str) -> Self {
        let command = Command::new(binaries::own("cofferdam-test-driver"));
        Self::launch(home, name, command)
    }

    /// Any driver's program; says itself where it is to listen.
    pub(crate) fn launch(home: &Home, name: &str, mut command: Command) -> Self {
        let dir = directory(home, name);
        let socket = dir.join("driver.sock");
        command.arg("--socket").arg(&socket);
        command.env("PATH", "/usr/bin:/bin").env("HOME", &dir);
        let log = home.join(&format!("driver-{name}.log"));
        let launcher = binaries::own("cofferdam-test-launch");
        let tree = Tree::start(User::Tester, &command, &log, &launcher);
        let driver = Self { tree, socket, log };
        wait::until_true("the driver listens", || driver.socket.exists());
        driver
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn pid(&self) -> u32 {
        self.tree.pid()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The pids of everything that runs in its sandboxes.
    pub fn inmates(&self) -> Vec<u32> {
        let mut members = self.tree.members();
        members.retain(|pid| *pid != self.pid());
        members
    }

    /// Stops it in the middle of whatever it does: it keeps its sockets and says nothing more.
    pub fn freeze(&self) {
        self.tree.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.tree.signal(Signal::CONT);
    }

    pub fn kill(&self) {
        self.tree.signal(Signal::KILL);
        assert_eq!(self.tree.wait(wait::PATIENCE), Some(End::Signal(9)));
    }
}

/// Where its sockets are.
pub(crate) fn directory(home: &Home, name: &str) -> PathBuf {
    home.private(User::Tester, &format!("drivers-{name}"))
}
