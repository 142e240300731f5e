//! What only an engine knows of a sandbox: `driver_config` in its spec.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::settings::UlimitSetting;

/// JSON Schema of [`DriverConfig`].
pub(crate) const DRIVER_CONFIG_SCHEMA: &str = include_str!("driver_config.schema.json");

/// See the schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DriverConfig {
    pub(crate) workspace: WorkspaceKind,
    pub(crate) volumes: Vec<VolumeConfig>,
    pub(crate) tmpfs: Vec<TmpfsConfig>,
    pub(crate) binds: Vec<BindConfig>,
    pub(crate) devices: Vec<String>,
    pub(crate) runtime: Option<String>,
    pub(crate) extra_hosts: BTreeMap<String, String>,
    pub(crate) shm_bytes: Option<u64>,
    pub(crate) ulimits: BTreeMap<String, UlimitSetting>,
    pub(crate) security_options: Vec<String>,
    pub(crate) image_user: bool,
}

/// Where the workspace is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkspaceKind {
    /// A volume: kept over a stop, not bounded.
    #[default]
    Volume,
    /// In memory: bounded, and empty after a stop.
    Memory,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumeConfig {
    pub(crate) name: String,
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TmpfsConfig {
    pub(crate) target: String,
    pub(crate) size_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindConfig {
    pub(crate) source: String,
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) read_only: bool,
}

#[cfg(test)]
mod tests {
    use cofferdam_driver_sdk::settings::{self, Schema};
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Result<DriverConfig, Vec<String>> {
        let schema = Schema::compile("driver_config", DRIVER_CONFIG_SCHEMA).unwrap();
        settings::read(&schema, "driver_config", &settings::from_json(value))
            .map_err(|found| found.into_iter().map(|one| one.field).collect())
    }

    #[test]
    fn schema_and_type_say_the_same() {
        let all = json!({
            "workspace": "memory",
            "volumes": [{"name": "cache", "target": "/cache", "read_only": true}],
            "tmpfs": [{"target": "/scratch", "size_bytes": 1048576}],
            "binds": [{"source": "/srv/x", "target": "/x"}],
            "devices": ["/dev/fuse", "vendor.example/gpu=0"],
            "runtime": "runsc",
            "extra_hosts": {"db": "10.0.0.2"},
            "shm_bytes": 67108864,
            "ulimits": {"nofile": {"soft": 1024, "hard": 2048}},
            "security_options": ["apparmor=mine"],
            "image_user": true,
        });
        let config = read(&all).unwrap();
        assert_eq!(config.workspace, WorkspaceKind::Memory);
        assert_eq!(config.devices.len(), 2);
        assert_eq!(read(&json!({})).unwrap(), DriverConfig::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = json!({"volumes": [{"name": "a", "target": "relative"}]});
        assert_eq!(
            read(&wrong).unwrap_err(),
            ["driver_config.volumes[0].target"]
        );
        assert!(read(&json!({"privileged": true})).is_err());
    }
}
