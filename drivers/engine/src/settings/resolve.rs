//! From settings to what the driver works with: all problems at once.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use cofferdam_driver_sdk::proto::FieldViolation;
use cofferdam_driver_sdk::spec::Violations;

use super::{RegistrySettings, Settings, StreamSetting, UlimitSetting};
use crate::discover::{Candidate, Discovered};

/// Half a second's worth of creates, so that nobody waits for one.
const SPARE_WORKSPACES_DEFAULT: u32 = 8;

/// Settings with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where the engine may be, best first.
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) stream: StreamSetting,
    pub(crate) supervisor_path: Option<PathBuf>,
    pub(crate) runtime: Option<String>,
    pub(crate) allowed_runtimes: Vec<String>,
    /// None: no sandbox has one.
    pub(crate) open_network: Option<String>,
    pub(crate) bind_paths: Vec<PathBuf>,
    pub(crate) allowed_volumes: Vec<String>,
    pub(crate) allowed_devices: Vec<String>,
    pub(crate) allow_gpus: bool,
    pub(crate) allowed_security_options: Vec<String>,
    pub(crate) registries: BTreeMap<String, RegistrySettings>,
    pub(crate) archive_paths: Vec<PathBuf>,
    pub(crate) ulimits: BTreeMap<String, UlimitSetting>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) spare_workspaces: usize,
}

impl Settings {
    /// Checks everything. `discovered` is what the engine's own ways of being found have come to.
    pub(crate) fn resolve(
        self,
        discovered: Discovered,
        open_network: &str,
    ) -> Result<Config, Vec<FieldViolation>> {
        let mut found = Violations::new();
        if let Some(tls) = &self.tls {
            found.check(
                tls.cert.is_some() == tls.key.is_some(),
                "tls",
                "cert and key belong together: set both or none",
            );
        }
        for (name, paths) in [
            ("bind_paths", &self.bind_paths),
            ("archive_paths", &self.archive_paths),
        ] {
            for (index, path) in paths.iter().enumerate() {
                plain_path(&format!("{name}[{index}]"), path, &mut found);
            }
        }
        if let Some(path) = &self.supervisor_path {
            plain_path("supervisor_path", path, &mut found);
        }
        for problem in &discovered.problems {
            found.add(problem.setting, &problem.message);
        }
        let open_network = self.open_network.unwrap_or_else(|| open_network.to_owned());
        let spare = self.spare_workspaces.unwrap_or(SPARE_WORKSPACES_DEFAULT);
        found.into_violations()?;
        Ok(Config {
            candidates: discovered.candidates,
            stream: self.stream,
            supervisor_path: self.supervisor_path,
            runtime: self.runtime,
            allowed_runtimes: self.allowed_runtimes,
            open_network: Some(open_network).filter(|name| !name.is_empty()),
            bind_paths: self.bind_paths,
            allowed_volumes: self.allowed_volumes,
            allowed_devices: self.allowed_devices,
            allow_gpus: self.allow_gpus,
            allowed_security_options: self.allowed_security_options,
            registries: self.registries,
            archive_paths: self.archive_paths,
            ulimits: self.ulimits,
            cgroup_parent: self.cgroup_parent,
            spare_workspaces: usize::try_from(spare).unwrap_or_default(),
        })
    }
}

impl Config {
    /// Whether a caller may mount this named volume.
    pub(crate) fn allows_volume(&self, name: &str) -> bool {
        self.allowed_volumes
            .iter()
            .any(|allowed| match allowed.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == allowed,
            })
    }

    /// Whether a caller may bind this path, which is one of the engine's host.
    pub(crate) fn allows_bind(&self, path: &Path) -> bool {
        self.bind_paths
            .iter()
            .any(|allowed| path.starts_with(allowed))
    }
}

pub(crate) fn plain_path(field: &str, path: &Path, found: &mut Violations) {
    let plain = path.is_absolute()
        && !path
            .components()
            .any(|part| matches!(part, Component::ParentDir));
    found.check(plain, field, "must be an absolute path without \"..\"");
}

#[cfg(test)]
mod tests {
    use cofferdam_driver_sdk::settings::{self, Schema};
    use serde_json::{Value, json};

    use super::*;
    use crate::settings::SETTINGS_SCHEMA;

    fn read(value: &Value) -> Result<Settings, Vec<FieldViolation>> {
        let schema = Schema::compile("settings", SETTINGS_SCHEMA).unwrap();
        settings::read(&schema, "", &settings::from_json(value))
    }

    fn resolved(value: &Value) -> Result<Config, Vec<FieldViolation>> {
        read(value)?.resolve(Discovered::default(), "bridge")
    }

    #[test]
    fn nothing_need_be_set() {
        let config = resolved(&json!({})).unwrap();
        assert_eq!(config.open_network.as_deref(), Some("bridge"));
        assert_eq!(config.spare_workspaces, 8);
        assert!(!config.allows_volume("x"));
        assert!(!config.allows_bind(Path::new("/")));
    }

    #[test]
    fn an_operator_opens_what_is_closed() {
        let config = resolved(&json!({
            "open_network": "",
            "bind_paths": ["/srv/data"],
            "allowed_volumes": ["cache-*", "tools"],
            "ulimits": {"nofile": 1024, "nproc": {"soft": 1, "hard": 2}},
            "stream": "relay",
        }))
        .unwrap();
        assert_eq!(config.open_network, None);
        assert!(config.allows_volume("cache-a") && config.allows_volume("tools"));
        assert!(!config.allows_volume("tools2"));
        assert!(config.allows_bind(Path::new("/srv/data/x")));
        assert!(!config.allows_bind(Path::new("/srv/database")));
        assert_eq!(config.ulimits["nproc"].bounds(), (1, 2));
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let found = resolved(&json!({
            "tls": {"ca": "/ca.pem", "cert": "/cert.pem"},
            "bind_paths": ["/a/../b"],
        }));
        let fields: Vec<_> = found
            .unwrap_err()
            .into_iter()
            .map(|one| one.field)
            .collect();
        assert_eq!(fields, ["tls", "bind_paths[0]"]);
        assert!(read(&json!({"sokcet": "x"})).is_err());
    }
}
