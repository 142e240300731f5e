//! A dockerd for one test, which may stop it, kill it and start it again.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use crate::binaries::Installation;
use crate::container::{Containers, Kind};
use crate::home::Home;
use crate::tree::{End, Tree};
use crate::user::User;
use crate::wait;

/// Everything of it is in one directory, and gone when it is dropped.
#[derive(Debug)]
pub struct OwnDocker {
    flags: Vec<String>,
    /// The last is the one that runs. What earlier ones have started may go on.
    trees: Vec<Tree>,
    home: Home,
}

impl OwnDocker {
    /// Starts it with these flags, and waits until it answers.
    pub fn start(flags: &[&str]) -> Self {
        let mut own = Self {
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            trees: Vec::new(),
            home: Home::new(User::Tester),
        };
        own.start_again();
        own
    }

    pub fn containers(&self) -> Containers {
        Containers::at(Kind::Docker, &self.host())
    }

    /// Asks it to end, and waits for it.
    pub fn stop(&mut self) {
        let tree = self.trees.last().expect("it was started");
        tree.signal(Signal::TERM);
        assert_eq!(tree.wait(wait::PATIENCE), Some(End::Code(0)));
    }

    /// Without asking.
    pub fn kill(&mut self) {
        let tree = self.trees.last().expect("it was started");
        tree.signal(Signal::KILL);
        assert_eq!(tree.wait(wait::PATIENCE), Some(End::Signal(9)));
    }

    pub fn start_again(&mut self) {
        let dir = |name: &str| self.home.join(name);
        let mut command = Command::new("dockerd");
        command.arg("--data-root").arg(dir("data"));
        command.arg("--exec-root").arg(dir("exec"));
        command.arg("--pidfile").arg(dir("docker.pid"));
        command.args(["--host", &self.host()]);
        // The host's firewall and interfaces are not ours to touch.
        command.args(["--iptables=false", "--ip-masq=false", "--bridge=none"]);
        command.args(&self.flags);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.home.path());
        let launcher = Installation::built().launcher;
        let log = dir("dockerd.log");
        let tree = Tree::start(User::Tester, &command, &log, &launcher);
        self.trees.push(tree);
        let engine = self.containers();
        let answers = wait::within(wait::PATIENCE, || {
            engine.run(&["version"]).status.success().then_some(())
        });
        let log = || fs::read_to_string(&log).unwrap_or_default();
        assert!(answers.is_some(), "dockerd does not answer: {}", log());
    }

    fn host(&self) -> String {
        format!("unix://{}", self.home.join("docker.sock").display())
    }
}

impl Drop for OwnDocker {
    fn drop(&mut self) {
        if let Some(tree) = self.trees.last()
            && tree.end().is_none()
        {
            tree.signal(Signal::TERM);
            tree.wait(wait::PATIENCE);
        }
        // What is left of it is killed.
        self.trees.clear();
        unmount_below(self.home.path());
    }
}

/// The newest first. A daemon that was killed leaves its mounts.
fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let ours: Vec<&str> = points
        .filter(|point| Path::new(point).starts_with(dir))
        .collect();
    for point in ours.iter().rev() {
        // One that went with another one is gone.
        let _gone = unmount(*point, UnmountFlags::DETACH);
    }
}
