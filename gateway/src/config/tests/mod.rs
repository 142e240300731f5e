//! A host to test with.

mod layers;
mod problems;
mod texts;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

/// A host in a directory: with the helper programs, a group file, and no configuration.
struct World {
    home: tempfile::TempDir,
    host: Host,
}

impl World {
    fn new(uid: u32) -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().to_owned();
        let world = Self {
            host: Host {
                environment: [("HOME".to_owned(), root.join("home/me").into())].into(),
                uid,
                program: Some(root.join("usr/bin/cofferdam-gateway")),
                directory: root.join("here"),
                root: root.clone(),
            },
            home,
        };
        for name in [
            "cofferdam-supervisor",
            "cofferdam-driver-process",
            "cofferdam-driver-other",
        ] {
            world.program(&format!("usr/libexec/cofferdam/{name}"));
        }
        world.write("etc/group", "root:x:0:\ncofferdam:x:990:me\n");
        world
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.home.path().join(relative)
    }

    fn write(&self, relative: &str, text: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn program(&self, relative: &str) -> PathBuf {
        let path = self.write(relative, "#!/bin/true\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn set(&mut self, name: &str, value: impl Into<std::ffi::OsString>) {
        self.host.environment.insert(name.to_owned(), value.into());
    }

    fn load(&self, flags: &Flags) -> Resolved {
        load(flags, &self.host).unwrap_or_else(|error| panic!("{error}"))
    }

    fn config(&self) -> Config {
        self.load(&Flags::default()).config
    }

    /// What is wrong, with this world's own directory cut out.
    fn problems(&self, flags: &Flags) -> String {
        let error = load(flags, &self.host).unwrap_err().to_string();
        error.replace(self.home.path().to_str().unwrap(), "")
    }

    fn problems_of(&self, text: &str) -> String {
        self.write("etc/cofferdam/config.toml", text);
        self.problems(&Flags::default())
    }
}

fn names(config: &Config) -> Vec<&str> {
    config
        .drivers
        .iter()
        .map(|driver| driver.name.as_str())
        .collect()
}
