//! Limits and accounting, on cgroup v2 or, where that is all there is, v1.
//!
//! [`CgroupParent::detect`] finds a place where leaves may be made and says which controllers
//! work there; [`CgroupParent::create`] makes a leaf with limits and returns, typed, whatever
//! could not be enforced. Nothing here decides whether that is acceptable.
//!
//! A sandbox's shim stays outside its leaf: it must be able to enforce the deadline and leave a
//! record while the leaf is frozen or out of memory. The supervisor is in the leaf, with its memory
//! and its pids, but not in the group below it that bounds cpu time: it has to answer, and to kill,
//! while its programs wait for theirs.
//!
//! ```text
//! <sandbox>            memory, pids: everything        the supervisor
//! <sandbox>/programs   cpu quota                       what it runs; only where cpu time is bounded
//! ```

mod detect;
mod files;
mod kill;
mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sandbox::plan::{CgroupPlacement, CpuQuota};

/// What a leaf bounds. `None` is unbounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Memory, tmpfs included. Swap is always off where memory is bounded.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Thousandths of one CPU.
    pub cpu_millis: Option<u64>,
}

/// Something a leaf can bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Memory.
    Memory,
    /// Keeping out of swap.
    Swap,
    /// Processes and threads.
    Pids,
    /// CPU time.
    Cpu,
}

/// A bound that was asked for and does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotEnforced {
    /// Which.
    pub bound: Bound,
    /// Why.
    pub why: String,
    /// What an operator can do about it.
    pub fix: String,
}

/// A cgroup operation failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct CgroupError {
    /// What was being done.
    pub action: &'static str,
    /// To what.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

/// What was measured; `None` is unmeasured, never zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupStats {
    /// CPU time used so far, in microseconds.
    pub cpu_usec: Option<u64>,
    /// Memory in use, in bytes.
    pub memory_bytes: Option<u64>,
    /// The most memory ever in use, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Bytes read from block devices.
    pub io_read_bytes: Option<u64>,
    /// Bytes written to block devices.
    pub io_write_bytes: Option<u64>,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// The version in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// The unified hierarchy.
    V2,
    /// One hierarchy for each controller.
    V1,
}

/// A place where leaves are made.
#[derive(Debug, Clone)]
pub struct CgroupParent {
    backend: Backend,
}

#[derive(Debug, Clone)]
enum Backend {
    V2(v2::Parent),
    V1(v1::Parent),
    /// No leaf can be made; why, and what to do.
    Absent {
        why: String,
        fix: String,
    },
}

/// The group below a leaf that bounds cpu time. On v2 a threaded one: the leaf's processes are moved
/// there thread by thread, and memory and pids stay the leaf's.
const PROGRAMS: &str = "programs";

/// One sandbox's cgroup: a directory in each hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    dirs: Vec<PathBuf>,
}

impl CgroupParent {
    /// Finds the parent. `setting` is a path from the root of the hierarchies; without one, the
    /// driver's own cgroup is used where it has been delegated, and `cofferdam` below the root
    /// when the driver is root. May move the driver into a leaf of its own, which v2 demands of a
    /// cgroup that is to have children. Blocks briefly.
    pub fn detect(setting: Option<&Path>) -> Self {
        detect::detect(setting)
    }

    /// No cgroups at all, for tests and for hosts without.
    pub fn absent(why: impl Into<String>, fix: impl Into<String>) -> Self {
        CgroupParent {
            backend: Backend::Absent {
                why: why.into(),
                fix: fix.into(),
            },
        }
    }

    /// The version in use, if any is.
    pub fn version(&self) -> Option<CgroupVersion> {
        match &self.backend {
            Backend::V2(_) => Some(CgroupVersion::V2),
            Backend::V1(_) => Some(CgroupVersion::V1),
            Backend::Absent { .. } => None,
        }
    }

    /// Where leaves are made.
    pub fn dirs(&self) -> Vec<PathBuf> {
        match &self.backend {
            Backend::V2(parent) => vec![parent.dir.clone()],
            Backend::V1(parent) => parent.dirs(),
            Backend::Absent { .. } => Vec::new(),
        }
    }

    /// Which bounds this parent cannot enforce.
    pub fn not_enforceable(&self) -> Vec<NotEnforced> {
        [Bound::Memory, Bound::Swap, Bound::Pids, Bound::Cpu]
            .into_iter()
            .filter_map(|bound| self.lacks(bound))
            .collect()
    }

    /// Why a bound cannot be enforced here; `None` when it can. Processes are always bounded: where
    /// no leaf counts them, `RLIMIT_NPROC` does, for each sandbox's user namespace or user.
    pub fn lacks(&self, bound: Bound) -> Option<NotEnforced> {
        match bound {
            Bound::Pids => None,
            bound => self.leaf_lacks(bound),
        }
    }

    /// Whether leaves count processes.
    pub fn counts_pids(&self) -> bool {
        self.leaf_lacks(Bound::Pids).is_none()
    }

    fn leaf_lacks(&self, bound: Bound) -> Option<NotEnforced> {
        let (why, fix) = match &self.backend {
            Backend::V2(parent) => parent.lacks(bound)?,
            Backend::V1(parent) => parent.lacks(bound)?,
            Backend::Absent { why, fix } => (why.clone(), fix.clone()),
        };
        Some(NotEnforced { bound, why, fix })
    }

    /// The leaf's directories, before it is made: for the record that must exist first.
    pub fn leaf(&self, name: &str) -> Leaf {
        Leaf {
            dirs: self.dirs().into_iter().map(|dir| dir.join(name)).collect(),
        }
    }

    /// Makes the leaf with its limits. Returns what of them is not enforced. Blocks briefly.
    pub fn create(
        &self,
        name: &str,
        limits: &CgroupLimits,
    ) -> Result<Vec<NotEnforced>, CgroupError> {
        match &self.backend {
            Backend::V2(parent) => parent.create(name, limits)?,
            Backend::V1(parent) => parent.create(name, limits)?,
            Backend::Absent { .. } => {}
        }
        Ok(limits
            .asked()
            .into_iter()
            .filter_map(|bound| self.lacks(bound))
            .collect())
    }
}

impl CgroupLimits {
    fn asked(&self) -> Vec<Bound> {
        let mut asked = Vec::new();
        if self.memory_bytes.is_some() {
            asked.extend([Bound::Memory, Bound::Swap]);
        }
        asked.extend(self.pids.map(|_| Bound::Pids));
        asked.extend(self.cpu_millis.map(|_| Bound::Cpu));
        asked
    }
}

impl Leaf {
    /// A leaf known from a record.
    pub fn from_dirs(dirs: Vec<PathBuf>) -> Self {
        Leaf { dirs }
    }

    /// Its directories.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// How the shim puts the init into it.
    pub fn placement(&self) -> CgroupPlacement {
        CgroupPlacement {
            procs_files: self.dirs.iter().map(|dir| dir.join(files::PROCS)).collect(),
            v2_dir: self.dirs.iter().find(|dir| v2::is_v2(dir)).cloned(),
            cpu_quota: self.cpu_quota(),
            memory_events: self.first_file(&["memory.events", "memory.oom_control"]),
            cpu_threads: self.cpu_threads(),
        }
    }

    fn first_file(&self, names: &[&str]) -> Option<PathBuf> {
        let files = self
            .dirs
            .iter()
            .flat_map(|dir| names.iter().map(|name| dir.join(name)));
        files.into_iter().find(|path| path.exists())
    }

    fn cpu_threads(&self) -> Option<PathBuf> {
        let dir = self.dirs.iter().find(|dir| dir.join(PROGRAMS).exists())?;
        let file = if v2::is_v2(dir) {
            v2::THREADS
        } else {
            v1::THREADS
        };
        Some(dir.join(PROGRAMS).join(file))
    }

    /// What is in force now; none where CPU time is not bounded.
    fn cpu_quota(&self) -> Option<CpuQuota> {
        self.cpu_files().find_map(|(dir, name, unlimited)| {
            let limited = files::read(&dir, name)?;
            let is_limited = limited.split(' ').next() != Some(unlimited);
            is_limited.then(|| CpuQuota {
                file: dir.join(name),
                limited,
                unlimited: unlimited.to_owned(),
            })
        })
    }

    /// Lets what is killed end at once, however little CPU time it was allowed.
    pub fn lift_cpu_quota(&self) -> Result<(), CgroupError> {
        match self.cpu_quota() {
            Some(quota) => files::write_to(&quota.file, &quota.unlimited),
            None => Ok(()),
        }
    }

    /// Directory, file, and the word for "no limit".
    fn cpu_files(&self) -> impl Iterator<Item = (PathBuf, &'static str, &'static str)> {
        // A leaf of an earlier release has it itself.
        let dirs = self
            .dirs
            .iter()
            .flat_map(|dir| [dir.join(PROGRAMS), dir.clone()]);
        dirs.flat_map(|dir| {
            [(v2::CPU_QUOTA, "max"), (v1::CPU_QUOTA, "-1")]
                .map(|(name, unlimited)| (dir.clone(), name, unlimited))
        })
    }

    /// What the kernel counted. Blocks briefly.
    pub fn stats(&self) -> CgroupStats {
        self.dirs.iter().fold(CgroupStats::default(), |stats, dir| {
            stats.or(if v2::is_v2(dir) {
                v2::stats(dir)
            } else {
                v1::stats(dir)
            })
        })
    }

    /// How often the kernel killed for want of memory.
    pub fn oom_kills(&self) -> Option<u64> {
        self.stats().oom_kills
    }

    /// Its processes, in the reader's pid namespace.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.dirs.iter().flat_map(|dir| members(dir)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills every process in it, once. The kernel may need a moment, and v1 a second call: until
    /// [`Leaf::pids`] is empty.
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.dirs.iter().try_for_each(|dir| kill::kill(dir))
    }

    /// Removes it, if nothing is left in it; false means not yet.
    pub fn try_remove(&self) -> Result<bool, CgroupError> {
        let mut gone = true;
        for dir in &self.dirs {
            gone &= files::try_remove(dir)?;
        }
        Ok(gone)
    }
}

/// The processes of a leaf's directory. On v2 those of its threads' groups are its own; of v1's
/// hierarchies not each has all.
fn members(dir: &Path) -> Vec<i32> {
    let mut pids = files::pids(dir);
    pids.extend(files::pids(&dir.join(PROGRAMS)));
    pids
}

impl CgroupStats {
    fn or(self, other: CgroupStats) -> CgroupStats {
        CgroupStats {
            cpu_usec: self.cpu_usec.or(other.cpu_usec),
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            memory_peak_bytes: self.memory_peak_bytes.or(other.memory_peak_bytes),
            pids: self.pids.or(other.pids),
            io_read_bytes: self.io_read_bytes.or(other.io_read_bytes),
            io_write_bytes: self.io_write_bytes.or(other.io_write_bytes),
            oom_kills: self.oom_kills.or(other.oom_kills),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_lifted_where_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = Leaf::from_dirs(vec![dir.path().to_owned()]);
        assert_eq!(leaf.placement().cpu_quota, None);
        leaf.lift_cpu_quota().unwrap();
        let file = dir.path().join(v1::CPU_QUOTA);
        std::fs::write(&file, "50").unwrap();
        let quota = CpuQuota {
            file: file.clone(),
            limited: "50".to_owned(),
            unlimited: "-1".to_owned(),
        };
        assert_eq!(leaf.placement().cpu_quota, Some(quota));
        leaf.lift_cpu_quota().unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "-1");
        // What is not limited need not be lifted.
        assert_eq!(leaf.placement().cpu_quota, None);
        std::fs::write(dir.path().join(v2::CPU_QUOTA), "max 100000").unwrap();
        assert_eq!(leaf.placement().cpu_quota, None);
    }

    #[test]
    fn processes_are_bounded_without_cgroups_too() {
        let none = CgroupParent::absent("there are none", "mount them");
        assert_eq!(none.lacks(Bound::Pids), None);
        assert!(!none.counts_pids());
        let bounds: Vec<_> = none.not_enforceable().iter().map(|it| it.bound).collect();
        assert_eq!(bounds, [Bound::Memory, Bound::Swap, Bound::Cpu]);
    }
}
