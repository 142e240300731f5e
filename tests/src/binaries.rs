//! Where the programs under test are.
//!
//! `cargo xtask test` builds and collects them and says where in `COFFERDAM_BIN_DIR` and
//! `COFFERDAM_LIBEXEC`. Without it they are looked for where it last put them: in `cofferdam/` of the
//! target directory. Programs of the tests themselves are beside the test binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const BIN: [&str; 2] = ["cofferdam", "cofferdam-gateway"];
const LIBEXEC: [&str; 5] = [
    "cofferdam-driver-docker",
    "cofferdam-driver-podman",
    "cofferdam-driver-process",
    "cofferdam-process-shim",
    "cofferdam-supervisor",
];

/// A product as a package would install it.
#[derive(Debug, Clone)]
pub struct Installation {
    pub bin: PathBuf,
    pub libexec: PathBuf,
    /// Not part of the product: see `src/bin/cofferdam-test-launch.rs`.
    pub(crate) launcher: PathBuf,
}

impl Installation {
    /// As it was built.
    pub fn built() -> Self {
        let collected = target_dir().join("cofferdam");
        let place = |variable: &str, name: &str| match std::env::var_os(variable) {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir),
            _ => collected.join(name),
        };
        let built = Self {
            bin: place("COFFERDAM_BIN_DIR", "bin"),
            libexec: place("COFFERDAM_LIBEXEC", "libexec"),
            launcher: own("cofferdam-test-launch"),
        };
        for (dir, name) in built.files() {
            assert!(
                dir.join(name).is_file(),
                "{} is missing in {}: run the tests by `cargo xtask test`, which builds it",
                name,
                dir.display()
            );
        }
        built
    }

    /// The same where every user may run it: a checkout may be in a home directory.
    pub fn copy_to(&self, dir: &Path) -> Self {
        let copy = Self {
            bin: dir.join("bin"),
            libexec: dir.join("libexec"),
            launcher: dir.join("launch"),
        };
        for path in [dir, &copy.bin, &copy.libexec] {
            fs::create_dir_all(path).expect("create a directory for programs");
            open_to_all(path);
        }
        for ((from, name), (to, _)) in self.files().zip(copy.files()) {
            link_or_copy(&from.join(name), &to.join(name));
        }
        link_or_copy(&self.launcher, &copy.launcher);
        copy
    }

    pub fn cli(&self) -> PathBuf {
        self.bin.join("cofferdam")
    }

    pub fn gateway(&self) -> PathBuf {
        self.bin.join("cofferdam-gateway")
    }

    fn files(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        let bin = BIN.iter().map(|name| (self.bin.as_path(), *name));
        bin.chain(LIBEXEC.iter().map(|name| (self.libexec.as_path(), *name)))
    }
}

/// A program of the tests: see `src/bin`.
pub fn own(name: &str) -> PathBuf {
    let path = profile_dir().join(name);
    assert!(
        path.is_file(),
        "{} is missing: `cargo test -p cofferdam-tests` builds it",
        path.display()
    );
    path
}

/// Puts a program where every user may run it.
pub fn link_or_copy(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
    }
    open_to_all(to);
}

/// Lets everybody read and run it.
pub fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .unwrap_or_else(|error| panic!("chmod {}: {error}", path.display()));
}

/// `target/debug`, from `target/debug/deps/runner-…`.
fn profile_dir() -> PathBuf {
    let own = std::env::current_exe().expect("path of the test binary");
    let dir = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    dir.to_path_buf()
}

pub(crate) fn target_dir() -> PathBuf {
    let profile = profile_dir();
    profile
        .parent()
        .expect("a directory above the profile's")
        .to_path_buf()
}
