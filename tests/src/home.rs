//! A short-lived directory for one gateway. Its path is short: a socket's may have 107 bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::user::User;

/// Removed with all that is in it, unless `COFFERDAM_TEST_KEEP` is set.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
}

impl Home {
    pub fn new(user: User) -> Self {
        let mut dir = tempfile::Builder::new()
            .prefix("cfd-")
            .rand_bytes(6)
            .tempdir_in("/tmp")
            .expect("create a directory in /tmp");
        if std::env::var_os("COFFERDAM_TEST_KEEP").is_some() {
            dir.disable_cleanup(true);
        }
        let home = Self { dir };
        // Others pass through to what is theirs.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
        user.own(home.path());
        home
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a directory in it that only this user can enter.
    pub fn private(&self, user: User, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).expect("create a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("chmod");
        user.own(&path);
        path
    }

    /// Puts a file in it that this user owns.
    pub fn file(&self, user: User, name: &str, content: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).expect("write a file");
        user.own(&path);
        path
    }
}
