//! What the shim answers once: it stands, or the stage that failed and the errno.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::record::ProcessId;

/// The shim's one answer on the launch socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchReport {
    /// The supervisor has been executed.
    Up(Up),
    /// Nothing is left running.
    Failed(Failure),
}

/// A sandbox that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Up {
    /// The shim.
    pub shim: ProcessId,
    /// The supervisor.
    pub init: ProcessId,
    /// The Landlock ABI in force, 0 when the kernel has none that can be used.
    pub landlock_abi: u32,
}

/// A stage that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done.
    pub stage: Stage,
    /// The kernel's answer; 0 when it was not the kernel that refused.
    pub errno: i32,
    /// The object, such as a path.
    pub detail: String,
}

impl Failure {
    /// A failure the kernel reported.
    pub fn os(stage: Stage, errno: i32, detail: impl Into<String>) -> Self {
        Failure {
            stage,
            errno,
            detail: detail.into(),
        }
    }

    /// A failure found by the shim itself.
    pub fn own(stage: Stage, detail: impl Into<String>) -> Self {
        Self::os(stage, 0, detail)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.stage)?;
        if !self.detail.is_empty() {
            write!(out, " ({})", self.detail)?;
        }
        if self.errno != 0 {
            write!(out, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// What the shim does, in this order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Stage { $($(#[$doc])* $name),+ }

        impl Stage {
            /// All stages, in order.
            pub const ALL: &'static [Stage] = &[$(Stage::$name),+];

            /// The stage in words.
            pub fn describe(self) -> &'static str {
                match self { $(Stage::$name => $text),+ }
            }
        }
    };
}

stages! {
    /// Reading the plan and the bootstrap from the launch socket.
    ReadPlan = "read the plan",
    /// Opening the state directory.
    OpenStateDir = "open the state directory",
    /// Opening the callback directory.
    OpenCallbackDir = "open the callback directory",
    /// Opening a `cgroup.procs` file.
    OpenCgroup = "open the sandbox's cgroup",
    /// Binding `shim.sock`.
    BindControlSocket = "bind the control socket",
    /// `clone3` with the namespace flags.
    CreateNamespaces = "create the user, mount, ipc, uts and network namespaces",
    /// Writing `uid_map` and `gid_map`.
    WriteIdMap = "write the user namespace's id map",
    /// Writing `shim.json` or `run.json`.
    WriteRecord = "write a record to the state directory",
    /// Making mounts private.
    PrivateMounts = "make the mount namespace private",
    /// `open_tree` of a host path.
    OpenBindSource = "open a host path to show inside",
    /// Becoming the sandbox's own identity.
    SetIdentity = "become the sandbox's own user",
    /// Bringing `lo` up.
    LoopbackUp = "bring the loopback interface up",
    /// `sethostname`.
    SetHostname = "set the host name",
    /// The tmpfs that becomes `/`.
    MountRoot = "mount the root file system",
    /// Directories, links and files of the root.
    FillRoot = "fill the root file system",
    /// `mount_setattr` of a bind.
    ProtectBind = "make a host path read-only",
    /// `move_mount` of a bind.
    MountBind = "show a host path inside",
    /// One of the tmpfs.
    MountTmpfs = "mount a tmpfs",
    /// The sandbox's own `devpts`.
    MountDevpts = "mount devpts",
    /// `pivot_root`.
    PivotRoot = "pivot into the new root",
    /// `clone3` of the init.
    CloneInit = "create the pid namespace",
    /// Writing to `cgroup.procs`.
    JoinCgroup = "join the sandbox's cgroup",
    /// The cgroup namespace.
    CgroupNamespace = "create the cgroup namespace",
    /// The fresh `/proc`.
    MountProc = "mount /proc",
    /// Covering what `/proc` tells of the host.
    MaskProc = "cover what /proc tells of the host",
    /// Descriptors 0 to 4 of the supervisor.
    Descriptors = "arrange the supervisor's descriptors",
    /// Resource limits.
    ResourceLimits = "set resource limits",
    /// Bounding set, permitted, ambient.
    DropCapabilities = "drop capabilities",
    /// `PR_SET_PDEATHSIG`, and whether the shim still lives.
    ParentDeath = "tie the supervisor's life to the shim's",
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivs = "set no_new_privs",
    /// The Landlock domain.
    Landlock = "enter the Landlock domain",
    /// The seccomp filter.
    Seccomp = "install the seccomp filter",
    /// `execveat`.
    ExecSupervisor = "execute the supervisor",
    /// The timer of the sandbox's deadline.
    ArmDeadline = "arm the timer of the deadline",
    /// `cpu.max` or `cpu.cfs_quota_us`.
    CpuQuota = "set the sandbox's cpu quota",
    /// A request that does not fit the state.
    Control = "carry out a control request",
}

impl fmt::Display for Stage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.describe())
    }
}
