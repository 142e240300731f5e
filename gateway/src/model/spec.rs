//! What a sandbox is to be, with every default filled in.

use std::collections::BTreeMap;
use std::fmt;

use super::UnixMillis;

/// A backend-neutral description of a sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxSpec {
    pub image: ImageSpec,
    pub uid: u32,
    pub gid: u32,
    pub limits: ResourceLimits,
    pub network: NetworkSpec,
    pub mounts: Vec<Mount>,
    pub labels: BTreeMap<String, String>,
    pub expire_time: UnixMillis,
    pub gpus: u32,
    /// What only one driver knows; checked against that driver's schema.
    pub driver_config: serde_json::Map<String, serde_json::Value>,
    pub isolation_min: Option<Isolation>,
    pub root_writable: bool,
    pub workspace: String,
    pub hostname: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    pub source: ImageSource,
    pub pull: PullPolicy,
    pub credentials: Option<Credentials>,
    pub platform: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// The host's own system directories.
    Host,
    /// An OCI reference.
    Reference(String),
    /// A path on the driver's host.
    Archive(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    #[default]
    Missing,
    Always,
    Never,
}

/// For one pull; never stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub identity_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Limits of a whole sandbox. 0: not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceLimits {
    pub memory_bytes: u64,
    pub cpu_millis: u64,
    pub pids: u64,
    pub disk_bytes: u64,
    pub tmp_bytes: u64,
    /// Those that the caller asked for by name: enforced or refused, never just hoped for.
    pub required: LimitSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitSet {
    pub memory: bool,
    pub cpu: bool,
    pub pids: bool,
    pub disk: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    pub class: NetworkClass,
    pub allow: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkClass {
    None,
    Egress,
    Open,
}

impl NetworkClass {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Egress => "egress",
            Self::Open => "open",
        }
    }
}

/// What separates a workload from the host, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    NoIsolation,
    Namespaces,
    Container,
    UserspaceKernel,
    VirtualMachine,
    RemoteMachine,
}

impl Isolation {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoIsolation => "none",
            Self::Namespaces => "namespaces",
            Self::Container => "container",
            Self::UserspaceKernel => "userspace-kernel",
            Self::VirtualMachine => "vm",
            Self::RemoteMachine => "remote-machine",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub target: String,
    pub read_only: bool,
    pub source: MountSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    HostPath(String),
    Volume(String),
    Tmpfs { size_bytes: u64 },
}

/// Environment variables, whose values may be secrets: they live in memory only and are not
/// printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// The names, which are no secret.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
