//! Settings of the driver: the wire form, its schema, and what it resolves to.

mod registries;
mod resolve;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use registries::RegistrySettings;
pub(crate) use resolve::Config;

/// JSON Schema of [`Settings`].
pub const SETTINGS_SCHEMA: &str = include_str!("settings.schema.json");

/// Driver-wide settings, as in the gateway's configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The engine's address: `unix:///path`, `tcp://host:port`, `ssh://user@host`.
    pub host: Option<String>,
    /// Name of a context (Docker) or connection (Podman) that the engine's own tools know.
    pub context: Option<String>,
    /// Key material for `tcp` addresses.
    pub tls: Option<TlsSettings>,
    /// How the supervisor's byte stream is made.
    pub stream: StreamSetting,
    /// The supervisor's binary, if the gateway's path cannot be reached from here.
    pub supervisor_path: Option<PathBuf>,
    /// The runtime of all containers, if not the engine's default.
    pub runtime: Option<String>,
    /// Runtimes that a caller may choose.
    pub allowed_runtimes: Vec<String>,
    /// The network of sandboxes with the class `open`; empty: there are none.
    pub open_network: Option<String>,
    /// Host paths at or below which a caller may have bind mounts.
    pub bind_paths: Vec<PathBuf>,
    /// Named volumes that a caller may use: names, or prefixes that end with `*`.
    pub allowed_volumes: Vec<String>,
    /// Devices that a caller may use: paths, or CDI names.
    pub allowed_devices: Vec<String>,
    /// Whether a caller may ask for GPUs.
    pub allow_gpus: bool,
    /// Security options that a caller may set, as the engine writes them.
    pub allowed_security_options: Vec<String>,
    /// Credentials for pulls of those who bring none, by registry: `registry.example:5000`.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// Directories below which a caller may name image archives.
    pub archive_paths: Vec<PathBuf>,
    /// Limits on the resources of each process, for every container.
    pub ulimits: BTreeMap<String, UlimitSetting>,
    /// The cgroup below which containers get theirs.
    pub cgroup_parent: Option<String>,
    /// How many prepared workspaces are kept ready.
    pub spare_workspaces: Option<u32>,
}

/// Paths of PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// Authorities that may have signed the engine's certificate.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// How the supervisor's byte stream is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamSetting {
    /// `mount` where engine and gateway share a file system, `relay` elsewhere.
    #[default]
    Auto,
    /// The callback directory is mounted into the container.
    Mount,
    /// The driver carries bytes between the container's stdin and stdout and the callback socket.
    Relay,
}

/// A limit, or a soft and a hard one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum UlimitSetting {
    /// Both.
    Same(i64),
    /// Each.
    Range {
        /// What holds.
        soft: i64,
        /// What it can be raised to.
        hard: i64,
    },
}

impl UlimitSetting {
    /// Soft and hard.
    #[must_use]
    pub fn bounds(self) -> (i64, i64) {
        match self {
            Self::Same(limit) => (limit, limit),
            Self::Range { soft, hard } => (soft, hard),
        }
    }
}
