//! Who runs a gateway: the user that runs the tests, or an ordinary one.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Of nobody's account, so that no file on this host belongs to it.
const STRANGER: u32 = 47_110;
/// Such users begin here, each of one test only.
const LONERS: u32 = 1 << 30;

/// A user of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests.
    Tester,
    /// Without any privilege: the tester, or somebody else if that is root.
    Ordinary,
    /// Without any privilege, and of this uid: needs root.
    Loner(u32),
}

impl User {
    /// Somebody of whose uid nobody else has made a name in /tmp. Needs root.
    pub fn loner() -> Self {
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).expect("randomness");
        Self::Loner(LONERS + u32::from_le_bytes(bytes) % LONERS)
    }

    pub fn uid(self) -> u32 {
        match self {
            Self::Ordinary if tester_is_root() => STRANGER,
            Self::Loner(uid) => uid,
            _ => rustix::process::getuid().as_raw(),
        }
    }

    /// True if it is not the one who runs the tests.
    pub fn is_other(self) -> bool {
        self.uid() != rustix::process::getuid().as_raw()
    }

    pub fn is_root(self) -> bool {
        self.uid() == 0
    }

    /// Makes a command run as this user, with no groups of ours.
    pub fn run(self, command: &mut Command) {
        if self.is_other() {
            command.uid(self.uid()).gid(self.uid());
        }
    }

    /// Makes a file or directory this user's.
    pub fn own(self, path: &Path) {
        if self.is_other() {
            std::os::unix::fs::chown(path, Some(self.uid()), Some(self.uid()))
                .unwrap_or_else(|error| panic!("chown {}: {error}", path.display()));
        }
    }
}

pub fn tester_is_root() -> bool {
    rustix::process::getuid().is_root()
}
