//! Cgroups of this host: handing a part over to an ordinary user, and finding what was left there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::user::{self, User};

const MOUNT: &str = "/sys/fs/cgroup";
/// What the process driver limits with.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// Where the controllers are mounted, one directory for v2.
#[derive(Debug)]
pub struct Hierarchies(Vec<PathBuf>);

impl Hierarchies {
    /// Those in which the tester may make cgroups for others; otherwise why there are none.
    pub fn find() -> Result<Self, String> {
        if !user::tester_is_root() {
            return Err("the tests do not run as root".to_owned());
        }
        let split: Vec<PathBuf> = CONTROLLERS
            .iter()
            .map(|name| Path::new(MOUNT).join(name))
            .collect();
        if split.iter().all(|path| path.join("cgroup.procs").exists()) {
            return Ok(Self(split));
        }
        let offered = fs::read_to_string(Path::new(MOUNT).join("cgroup.controllers"))
            .map_err(|_| format!("{MOUNT} holds neither v1's {CONTROLLERS:?} nor v2"))?;
        let has = |name: &&str| offered.split_whitespace().any(|offer| offer == *name);
        match CONTROLLERS.iter().find(|name| !has(name)) {
            None => Ok(Self(vec![MOUNT.into()])),
            Some(name) => Err(format!("{MOUNT} has no {name} controller")),
        }
    }

    fn is_v2(&self) -> bool {
        self.0.len() == 1
    }
}

/// A cgroup that belongs to a user. Removed at the end, with what is below it.
#[derive(Debug)]
pub struct Delegated {
    hierarchies: Hierarchies,
    name: String,
}

impl Delegated {
    pub fn to(user: User) -> Self {
        let hierarchies = Hierarchies::find().expect("checked by the test");
        let name = format!("cofferdam-test-{}", crate::random_name());
        let delegated = Self { hierarchies, name };
        if delegated.hierarchies.is_v2() {
            let words: Vec<String> = CONTROLLERS.iter().map(|name| format!("+{name}")).collect();
            let path = Path::new(MOUNT).join("cgroup.subtree_control");
            fs::write(path, words.join(" ")).expect("hand controllers down");
        }
        for dir in delegated.dirs() {
            fs::create_dir(&dir).expect("create a cgroup");
            user.own(&dir);
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                if dir.join(file).exists() {
                    user.own(&dir.join(file));
                }
            }
        }
        delegated
    }

    /// For the driver's setting `cgroup_parent`.
    pub fn parent(&self) -> String {
        format!("/{}/sandboxes", self.name)
    }

    /// On v2 a process can be moved only by one who may write where it comes from.
    pub fn adopt(&self, pid: u32) {
        if self.hierarchies.is_v2() {
            let leaf = Path::new(MOUNT).join(&self.name).join("gateway");
            fs::create_dir_all(&leaf).expect("create a cgroup");
            fs::write(leaf.join("cgroup.procs"), pid.to_string()).expect("move a process");
        }
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.0.iter().map(|path| path.join(&self.name))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for dir in self.dirs() {
            remove(&dir);
        }
    }
}

/// From the leaves up; a cgroup with processes stays.
fn remove(dir: &Path) {
    for below in directories(dir) {
        remove(&below);
    }
    let _ = fs::remove_dir(dir);
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Cgroups, in all hierarchies, whose name holds one of these.
pub fn named(names: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::from(MOUNT)];
    while let Some(dir) = pending.pop() {
        let name = dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if names.iter().any(|wanted| name.contains(wanted.as_str())) {
            found.push(dir.clone());
        }
        pending.extend(directories(&dir));
    }
    found
}
