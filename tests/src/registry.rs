//! A registry of images on this host, for one test.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::binaries::Installation;
use crate::container::{Containers, IMAGE};
use crate::home::Home;
use crate::tree::Tree;
use crate::user::User;
use crate::wait;

/// Who may pull where that is not everybody.
pub const USERNAME: &str = "robot";
pub const PASSWORD: &str = "U*U";
/// Of the password; from the test vectors of bcrypt's first implementation.
const PASSWORD_HASH: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// Debian's `docker-registry`, in a directory of its own.
#[derive(Debug)]
pub struct Registry {
    tree: Tree,
    /// "127.0.0.1:12345".
    address: String,
    home: Home,
}

impl Registry {
    /// One that anybody may use.
    pub fn start() -> Self {
        let home = Home::new(User::Tester);
        let (tree, address) = serve(&home, "127.0.0.1:0", "");
        Self {
            tree,
            address,
            home,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The tests' image under a name of this registry's, and only there; its reference.
    pub fn hold(&self, engine: &Containers, name: &str) -> String {
        let reference = format!("{}/{name}", self.address);
        engine.say(&["tag", IMAGE, &reference]);
        engine.say(&["push", &reference]);
        engine.say(&["rmi", &reference]);
        reference
    }

    /// From now on only with the password.
    pub fn close(&mut self) {
        self.tree.signal(Signal::KILL);
        self.tree.wait(wait::PATIENCE).expect("its end");
        let line = format!("{USERNAME}:{PASSWORD_HASH}\n");
        let users = self.home.file(User::Tester, "users", &line);
        let auth = format!("auth:\n  htpasswd:\n    realm: tests\n    path: {users:?}\n");
        (self.tree, self.address) = serve(&self.home, &self.address, &auth);
    }
}

fn serve(home: &Home, address: &str, more: &str) -> (Tree, String) {
    let config = format!(
        "version: 0.1\nlog:\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
         rootdirectory: {:?}\nhttp:\n  addr: {address}\n{more}",
        home.join("images")
    );
    let config = home.file(User::Tester, "config.yml", &config);
    let log = home.join("registry.log");
    let _absent = fs::remove_file(&log);
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config);
    command.env("PATH", "/usr/bin:/bin");
    let tree = Tree::start(
        User::Tester,
        &command,
        &log,
        &Installation::built().launcher,
    );
    let address = wait::until("the registry listens", || {
        let text = fs::read_to_string(&log).ok()?;
        let (_, rest) = text.split_once("listening on ")?;
        let address = rest.split(['"', ' ', '\n']).next()?;
        Some(address.to_owned())
    });
    (tree, address)
}
