//! `ShimPlan`: everything the shim needs to know to make one sandbox, and nothing secret.
//!
//! The bootstrap (it holds the one-time token) travels beside the plan, never in it, so that a
//! plan may be logged.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of [`ShimPlan`]. Driver and shim are installed together; a mismatch is refused.
pub const PLAN_VERSION: u32 = 1;

/// Where the supervisor inherits the counter of kills for want of memory; where there is none,
/// `/dev/null`, which counts nothing.
pub const MEMORY_EVENTS_FD: i32 = 5;

/// Where it inherits the file that puts programs into the group which bounds their cpu time; where
/// there is none, `/dev/null`, which puts nothing anywhere.
pub const CPU_THREADS_FD: i32 = 6;

/// How many host ids one sandbox owns when the driver is root.
pub const ID_BLOCK_SIZE: u32 = 16;

/// The inner id that stands for "nobody" and receives whatever is not mapped.
pub const NOBODY: u32 = 65534;

/// What the shim makes of one sandbox. Paths are the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimPlan {
    /// Must be [`PLAN_VERSION`].
    pub version: u32,
    /// The gateway's id for the sandbox.
    pub sandbox_id: String,
    /// This sandbox's own directory (see [`super::layout`]); the driver made it.
    pub state_dir: PathBuf,
    /// Directory that holds (or will hold) the gateway's `gateway.sock`.
    pub callback_dir: PathBuf,
    /// How ids inside relate to ids outside.
    pub ids: IdMapping,
    /// Who the workload is, seen from inside.
    pub workload: Workload,
    /// Bounds the shim itself must set up.
    pub limits: ShimLimits,
    /// Which network namespace the sandbox lives in.
    pub network: Network,
    /// Host paths the sandbox may read, beyond the system directories.
    pub binds: Vec<ReadOnlyBind>,
    /// The name `hostname` prints.
    pub hostname: String,
    /// When the sandbox must be dead, in milliseconds since 1970; 0 means never.
    pub expire_time_unix_ms: u64,
    /// Where the sandbox's processes are accounted.
    pub cgroup: CgroupPlacement,
}

/// How user and group ids of the sandbox map to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IdMapping {
    /// [`ID_BLOCK_SIZE`] host ids belong to this sandbox: inner 0 is the first, the workload the
    /// second, nobody the third. Needs a root driver.
    Block {
        /// The first host id, user and group alike.
        first_host_id: u32,
    },
    /// One id, the driver's own. The shim's namespace maps it to 0, because devpts wants a root;
    /// the init enters a second namespace inside that one, where it is the workload's id.
    /// Supervisor and workload share it.
    Single {
        /// The driver's effective user id on the host.
        host_uid: u32,
        /// The driver's effective group id on the host.
        host_gid: u32,
    },
}

/// The workload's identity inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Inner user id.
    pub uid: u32,
    /// Inner group id.
    pub gid: u32,
    /// Login name, `[a-z_][a-z0-9_-]*`.
    pub user: String,
}

/// Bounds set up by the shim. Memory, processes and CPU are the cgroup's, see
/// [`crate::cgroup::CgroupLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShimLimits {
    /// Size of `/tmp` in bytes. `/dev/shm` gets the same bound.
    pub tmp_bytes: u64,
    /// Size of `/workspace` in bytes.
    pub workspace_bytes: u64,
    /// `RLIMIT_NPROC`, set where no cgroup counts processes.
    pub nproc: Option<u64>,
}

/// The sandbox's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A network namespace of its own with nothing but `lo`.
    None,
    /// The host's. An explicit opt-out of isolation.
    Host,
}

/// A host path shown read-only inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOnlyBind {
    /// Absolute host path of a file or directory.
    pub source: PathBuf,
    /// Absolute path inside, without `..`.
    pub target: PathBuf,
}

/// Which cgroup the init process joins before it executes the supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupPlacement {
    /// `cgroup.procs` files, one for each hierarchy. The shim opens them with the driver's
    /// credentials; the init joins by writing `0`.
    pub procs_files: Vec<PathBuf>,
    /// The v2 leaf, for `CLONE_INTO_CGROUP`, which avoids the migration lock.
    pub v2_dir: Option<PathBuf>,
    /// What bounds CPU time, if it is bounded.
    #[serde(default)]
    pub cpu_quota: Option<CpuQuota>,
    /// The leaf's `memory.events` or `memory.oom_control`.
    #[serde(default)]
    pub memory_events: Option<PathBuf>,
    /// `cgroup.threads` or `tasks` of the group below the leaf that the quota is for: the supervisor
    /// stays outside, so that it answers however little is left.
    #[serde(default)]
    pub cpu_threads: Option<PathBuf>,
}

/// The control file of the CPU quota. The shim lifts the quota to kill: what is killed has to run
/// for a moment to end, and hundreds of processes would share that moment's worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuQuota {
    /// `cpu.max` or `cpu.cfs_quota_us`. The shim opens it with the driver's credentials.
    pub file: PathBuf,
    /// What it says while the sandbox runs.
    pub limited: String,
    /// What lifts it.
    pub unlimited: String,
}

/// A line of `/proc/PID/{uid,gid}_map`: inner id, host id, count.
pub type IdMapLine = (u32, u32, u32);

impl IdMapping {
    /// The user map of the shim's namespace.
    pub fn uid_lines(&self, workload_uid: u32) -> Vec<IdMapLine> {
        match *self {
            IdMapping::Block { first_host_id } => block_lines(first_host_id, workload_uid),
            IdMapping::Single { host_uid, .. } => vec![(0, host_uid, 1)],
        }
    }

    /// The group map of the shim's namespace.
    pub fn gid_lines(&self, workload_gid: u32) -> Vec<IdMapLine> {
        match *self {
            IdMapping::Block { first_host_id } => block_lines(first_host_id, workload_gid),
            IdMapping::Single { host_gid, .. } => vec![(0, host_gid, 1)],
        }
    }

    /// The host uid of shim and supervisor.
    pub fn supervisor_host_uid(&self) -> u32 {
        match *self {
            IdMapping::Block { first_host_id } => first_host_id,
            IdMapping::Single { host_uid, .. } => host_uid,
        }
    }
}

fn block_lines(first_host_id: u32, workload: u32) -> Vec<IdMapLine> {
    let mut lines = vec![(0, first_host_id, 1)];
    for (offset, inner) in [(1, workload), (2, NOBODY)] {
        if lines.iter().all(|&(taken, ..)| taken != inner) {
            lines.push((inner, first_host_id + offset, 1));
        }
    }
    lines
}

impl ShimPlan {
    /// What is wrong with a plan whatever the machine, or nothing.
    pub fn problem(&self) -> Option<String> {
        if self.version != PLAN_VERSION {
            return Some(format!(
                "plan version {} does not match this shim's {PLAN_VERSION}: driver and shim must \
                 come from one release",
                self.version
            ));
        }
        for path in [&self.state_dir, &self.callback_dir] {
            if !path.is_absolute() {
                return Some(format!("{} is not an absolute path", path.display()));
            }
        }
        if !is_user_name(&self.workload.user) {
            return Some(format!("{:?} is not a user name", self.workload.user));
        }
        if self.hostname.is_empty()
            || !self
                .hostname
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        {
            return Some(format!("{:?} is not a host name", self.hostname));
        }
        self.binds.iter().find_map(ReadOnlyBind::problem)
    }
}

impl ReadOnlyBind {
    /// Where nothing may be laid over, because the sandbox's own mounts live there.
    const OWN: [&'static str; 14] = [
        "/proc",
        "/dev",
        "/tmp",
        "/run",
        "/workspace",
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/var/run",
        "/var/tmp",
    ];

    /// What is wrong with the bind whatever the machine, or nothing.
    pub fn problem(&self) -> Option<String> {
        let target = self.target.display();
        if !self.source.is_absolute() || !self.target.is_absolute() {
            return Some(format!(
                "bind {} -> {target}: both must be absolute",
                self.source.display()
            ));
        }
        let mut parts = self.target.components().skip(1).peekable();
        if parts.peek().is_none()
            || parts.any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            return Some(format!("bind target {target} must be a plain path below /"));
        }
        let shadows = Self::OWN.iter().any(|own| self.target.starts_with(own));
        shadows
            .then(|| format!("bind target {target} lies in a directory the sandbox makes itself"))
    }
}

fn is_user_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && name.len() <= 32
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_maps_root_workload_and_nobody_apart() {
        let ids = IdMapping::Block {
            first_host_id: 0x7000_0010,
        };
        assert_eq!(
            ids.uid_lines(1000),
            [
                (0, 0x7000_0010, 1),
                (1000, 0x7000_0011, 1),
                (NOBODY, 0x7000_0012, 1)
            ]
        );
    }

    #[test]
    fn no_inner_id_is_mapped_twice() {
        let ids = IdMapping::Block { first_host_id: 100 };
        assert_eq!(ids.uid_lines(0), [(0, 100, 1), (NOBODY, 102, 1)]);
        assert_eq!(ids.uid_lines(NOBODY), [(0, 100, 1), (NOBODY, 101, 1)]);
    }

    #[test]
    fn an_ordinary_user_maps_only_itself() {
        let ids = IdMapping::Single {
            host_uid: 501,
            host_gid: 20,
        };
        assert_eq!(ids.uid_lines(1000), [(0, 501, 1)]);
        assert_eq!(ids.gid_lines(1000), [(0, 20, 1)]);
    }

    #[test]
    fn binds_may_not_shadow_the_sandbox_or_climb() {
        let bind = |target: &str| ReadOnlyBind {
            source: "/srv".into(),
            target: target.into(),
        };
        assert_eq!(bind("/srv/data").problem(), None);
        for bad in ["/", "/proc/1", "/dev", "/usr/lib", "/a/../usr", "relative"] {
            assert!(bind(bad).problem().is_some(), "{bad} was accepted");
        }
    }
}
