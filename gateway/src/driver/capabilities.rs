//! What a driver can do, as it said in its handshake.

use crate::model::{Isolation, LimitSet, NetworkClass};

/// Everything that the gateway checks a request against before it calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    pub execution: Execution,
    /// `None`: the driver named one that this gateway does not know, or none at all.
    pub isolation: Option<Isolation>,
    pub images: ImageSources,
    pub networks: Vec<NetworkClass>,
    pub limits: LimitSet,
    pub stop_start: bool,
    pub pause: bool,
    pub snapshot: bool,
    pub console: bool,
    pub stats: bool,
    pub gpu: bool,
    pub command_stdin: bool,
    pub command_files: bool,
    pub host_mounts: bool,
    pub choose_user: bool,
}

/// Who runs the commands in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// The gateway, over the supervisor's session.
    Supervised,
    /// The driver: its platform can give no byte stream.
    DriverExecuted,
}

/// Ways to say what the root file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImageSources {
    pub host: bool,
    pub registry: bool,
    pub archive: bool,
}
