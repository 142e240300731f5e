//! One hierarchy for each controller, each with a leaf of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files::{self, keyed, number};
use super::v2::quota_usec;
use super::{Bound, CgroupError, CgroupLimits, CgroupStats, PROGRAMS};

/// The controllers a leaf is made in. `cpuacct` only counts.
pub(super) const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];

/// Takes threads one by one.
pub(super) const THREADS: &str = "tasks";

/// In microseconds of each period.
pub(super) const CPU_QUOTA: &str = "cpu.cfs_quota_us";

/// Directories, by controller, whose children are sandboxes. Controllers mounted together share
/// theirs.
#[derive(Debug, Clone)]
pub(super) struct Parent {
    pub(super) by_controller: BTreeMap<String, PathBuf>,
}

impl Parent {
    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = self.by_controller.values().cloned().collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }

    pub(super) fn lacks(&self, bound: Bound) -> Option<(String, String)> {
        let controller = match bound {
            Bound::Memory | Bound::Swap => "memory",
            Bound::Pids => "pids",
            Bound::Cpu => "cpu",
        };
        let Some(dir) = self.by_controller.get(controller) else {
            return Some((
                format!("no writable cgroup v1 hierarchy has the {controller} controller"),
                format!(
                    "mount it, or create a directory in it that belongs to the driver's user and \
                     name that in cgroup_parent (as {controller}:/<cgroup_parent>)"
                ),
            ));
        };
        (bound == Bound::Swap && !dir.join(SWAP_LIMIT).exists() && host_swaps()).then(|| {
            (
                "the kernel does not account swap to cgroups".to_owned(),
                "boot with swapaccount=1, or run without swap".to_owned(),
            )
        })
    }

    pub(super) fn create(&self, name: &str, limits: &CgroupLimits) -> Result<(), CgroupError> {
        for dir in self.dirs() {
            files::make(&dir.join(name))?;
        }
        let leaf = |controller: &str| self.by_controller.get(controller).map(|dir| dir.join(name));
        if let (Some(bytes), Some(dir)) = (limits.memory_bytes, leaf("memory")) {
            let bytes = bytes.to_string();
            files::write(&dir, "memory.limit_in_bytes", &bytes)?;
            if dir.join(SWAP_LIMIT).exists() {
                files::write(&dir, SWAP_LIMIT, &bytes)?;
            }
        }
        if let (Some(count), Some(dir)) = (limits.pids, leaf("pids")) {
            files::write(&dir, "pids.max", &count.to_string())?;
        }
        if let (Some(millis), Some(dir)) = (limits.cpu_millis, leaf("cpu")) {
            let programs = dir.join(PROGRAMS);
            files::make(&programs)?;
            files::write(&programs, CPU_QUOTA, &quota_usec(millis).to_string())?;
        }
        Ok(())
    }
}

/// Memory and swap together; as high as memory alone, it leaves no room for swap.
const SWAP_LIMIT: &str = "memory.memsw.limit_in_bytes";

fn host_swaps() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

pub(super) fn stats(dir: &Path) -> CgroupStats {
    CgroupStats {
        cpu_usec: number(dir, "cpuacct.usage").map(|nanoseconds| nanoseconds / 1000),
        memory_bytes: number(dir, "memory.usage_in_bytes"),
        memory_peak_bytes: number(dir, "memory.max_usage_in_bytes"),
        pids: number(dir, "pids.current"),
        io_read_bytes: None,
        io_write_bytes: None,
        oom_kills: keyed(dir, "memory.oom_control", "oom_kill"),
    }
}
