//! Settings of the driver: the wire form, its schema, and what it resolves to.
//!
//! [`Settings`] is what an operator writes; [`Settings::resolve`] finds every problem at once and
//! returns the [`Config`] that the driver works with.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cofferdam_driver_sdk::proto::FieldViolation;
use cofferdam_driver_sdk::spec::Violations;
use serde::Deserialize;

use crate::ids::CLAIMS_DIR;

/// Driver-wide settings, as in the gateway's configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the driver keeps what it knows about its sandboxes.
    pub state_dir: Option<PathBuf>,
    /// The cgroup below which sandboxes get theirs, from the root of the hierarchies.
    pub cgroup_parent: Option<PathBuf>,
    /// Whether a caller may have the host's network.
    pub allow_host_network: bool,
    /// Host paths at or below which a caller may have read-only mounts.
    pub read_only_paths: Vec<PathBuf>,
    /// The supervisor's binary, if the gateway's path cannot be reached from here.
    pub supervisor_path: Option<PathBuf>,
    /// The program `cofferdam-process-shim`.
    pub shim_path: Option<PathBuf>,
    /// Where root drivers of this host agree on the host ids of their sandboxes.
    pub id_claims_dir: Option<PathBuf>,
    /// How long a launch may take, in milliseconds.
    pub launch_timeout_ms: Option<u64>,
}

/// JSON Schema of [`Settings`].
pub const SETTINGS_SCHEMA: &str = include_str!("config/settings.schema.json");

/// JSON Schema of `driver_config` in a sandbox's spec; see [`DriverConfig`].
pub const DRIVER_CONFIG_SCHEMA: &str = include_str!("config/driver_config.schema.json");

/// What only this platform knows of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriverConfig {
    /// Host paths to be seen read-only, at the same place; each at or below a path that the
    /// operator allowed.
    pub read_only_paths: Vec<PathBuf>,
}

/// Settings with every default filled in. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Records of sandboxes, and their state directories.
    pub state_dir: PathBuf,
    /// As in the settings.
    pub cgroup_parent: Option<PathBuf>,
    /// As in the settings.
    pub allow_host_network: bool,
    /// As in the settings.
    pub read_only_paths: Vec<PathBuf>,
    /// As in the settings.
    pub supervisor_path: Option<PathBuf>,
    /// The shim's program.
    pub shim_path: PathBuf,
    /// Where host ids are claimed; none for an ordinary user, who has only one.
    pub id_claims_dir: Option<PathBuf>,
    /// How long a launch may take.
    pub launch_timeout: Duration,
}

/// A launch takes milliseconds; on a host that swaps, seconds.
const LAUNCH_TIMEOUT_MS_DEFAULT: u64 = 10_000;
const LAUNCH_TIMEOUT_MS_MIN: u64 = 100;
const LAUNCH_TIMEOUT_MS_MAX: u64 = 600_000;

/// Where the driver runs, as far as defaults depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether the driver's user is root.
    pub is_root: bool,
    /// `$XDG_STATE_HOME`, or what stands in for it.
    pub state_home: Option<PathBuf>,
    /// The driver's own program.
    pub program: Option<PathBuf>,
}

impl Surroundings {
    /// Of this process.
    pub fn here() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = || Some(variable("HOME")?.join(".local/state"));
        Self {
            is_root: rustix::process::geteuid().is_root(),
            state_home: variable("XDG_STATE_HOME").or_else(home),
            program: std::env::current_exe().ok(),
        }
    }
}

impl Settings {
    /// Fills in defaults and checks everything.
    ///
    /// # Errors
    /// Every problem, with the setting's name.
    pub fn resolve(self, here: &Surroundings) -> Result<Config, Vec<FieldViolation>> {
        let mut found = Violations::new();
        let optional = [
            ("state_dir", &self.state_dir),
            ("cgroup_parent", &self.cgroup_parent),
            ("supervisor_path", &self.supervisor_path),
            ("shim_path", &self.shim_path),
            ("id_claims_dir", &self.id_claims_dir),
        ];
        for (field, path) in optional {
            if let Some(path) = path {
                plain_path(field, path, &mut found);
            }
        }
        for (index, path) in self.read_only_paths.iter().enumerate() {
            plain_path(&format!("read_only_paths[{index}]"), path, &mut found);
        }
        let timeout_ms = self.launch_timeout_ms.unwrap_or(LAUNCH_TIMEOUT_MS_DEFAULT);
        let allowed = LAUNCH_TIMEOUT_MS_MIN..=LAUNCH_TIMEOUT_MS_MAX;
        found.check(
            allowed.contains(&timeout_ms),
            "launch_timeout_ms",
            "must be from 100 to 600000",
        );
        let state_dir = self.state_dir.or_else(|| default_state_dir(here));
        if state_dir.is_none() {
            found.add(
                "state_dir",
                "must be set: neither XDG_STATE_HOME nor HOME is",
            );
        }
        let shim_path = self.shim_path.or_else(|| default_shim(here));
        if shim_path.is_none() {
            found.add(
                "shim_path",
                "must be set: the driver does not know its own path",
            );
        }
        let claims = self.id_claims_dir.unwrap_or_else(|| CLAIMS_DIR.into());
        found.into_violations()?;
        Ok(Config {
            state_dir: state_dir.unwrap_or_default(),
            cgroup_parent: self.cgroup_parent,
            allow_host_network: self.allow_host_network,
            read_only_paths: self.read_only_paths,
            supervisor_path: self.supervisor_path,
            shim_path: shim_path.unwrap_or_default(),
            id_claims_dir: here.is_root.then_some(claims),
            launch_timeout: Duration::from_millis(timeout_ms),
        })
    }
}

impl Config {
    /// Where each sandbox has its state directory.
    pub fn sandboxes_dir(&self) -> PathBuf {
        self.state_dir.join("sandboxes")
    }

    /// Where the trial sandbox lives and dies.
    pub fn probe_dir(&self) -> PathBuf {
        self.state_dir.join("probe")
    }
}

fn default_state_dir(here: &Surroundings) -> Option<PathBuf> {
    if here.is_root {
        return Some("/var/lib/cofferdam/drivers/process".into());
    }
    Some(here.state_home.as_ref()?.join("cofferdam/drivers/process"))
}

/// Installed beside the driver.
fn default_shim(here: &Surroundings) -> Option<PathBuf> {
    Some(
        here.program
            .as_ref()?
            .with_file_name("cofferdam-process-shim"),
    )
}

fn plain_path(field: &str, path: &Path, found: &mut Violations) {
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

    fn root() -> Surroundings {
        Surroundings {
            is_root: true,
            state_home: Some("/home/u/.local/state".into()),
            program: Some("/usr/libexec/cofferdam/cofferdam-driver-process".into()),
        }
    }

    fn read(value: &Value) -> Result<Settings, Vec<FieldViolation>> {
        let schema = Schema::compile("settings", SETTINGS_SCHEMA).unwrap();
        settings::read(&schema, "", &settings::from_json(value))
    }

    fn fields(found: Vec<FieldViolation>) -> Vec<String> {
        found.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn nothing_need_be_set() {
        let config = read(&json!({})).unwrap().resolve(&root()).unwrap();
        assert_eq!(
            config.state_dir,
            Path::new("/var/lib/cofferdam/drivers/process")
        );
        assert_eq!(
            config.shim_path,
            Path::new("/usr/libexec/cofferdam/cofferdam-process-shim")
        );
        assert_eq!(config.id_claims_dir.as_deref(), Some(Path::new(CLAIMS_DIR)));
        let user = Surroundings {
            is_root: false,
            ..root()
        };
        let config = Settings::default().resolve(&user).unwrap();
        assert_eq!(
            config.state_dir,
            Path::new("/home/u/.local/state/cofferdam/drivers/process")
        );
        assert_eq!(config.id_claims_dir, None);
    }

    #[test]
    fn every_setting_can_be_set() {
        let settings = read(&json!({
            "state_dir": "/srv/state",
            "cgroup_parent": "/machine.slice/cofferdam",
            "allow_host_network": true,
            "read_only_paths": ["/opt/tools"],
            "supervisor_path": "/opt/supervisor",
            "shim_path": "/opt/shim",
            "id_claims_dir": "/run/ids",
            "launch_timeout_ms": 2000,
        }));
        let config = settings.unwrap().resolve(&root()).unwrap();
        assert_eq!(config.launch_timeout, Duration::from_secs(2));
        assert!(config.allow_host_network);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let settings = read(&json!({
            "state_dir": "relative",
            "read_only_paths": ["/ok", "/a/../b"],
            "launch_timeout_ms": 200,
        }));
        // The schema finds these already; what it does not is left to `resolve`.
        assert_eq!(fields(settings.unwrap_err()), ["state_dir"]);
        let settings = Settings {
            state_dir: Some("relative".into()),
            read_only_paths: vec!["/ok".into(), "/a/../b".into()],
            launch_timeout_ms: Some(1),
            ..Settings::default()
        };
        let found = settings.resolve(&root()).unwrap_err();
        assert_eq!(
            fields(found),
            ["state_dir", "read_only_paths[1]", "launch_timeout_ms"]
        );
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(read(&json!({"sate_dir": "/x"})).is_err());
    }

    #[test]
    fn the_driver_config_is_what_its_schema_says() {
        let schema = Schema::compile("driver_config", DRIVER_CONFIG_SCHEMA).unwrap();
        let read = |value: &Value| {
            settings::read::<DriverConfig>(&schema, "driver_config", &settings::from_json(value))
        };
        assert_eq!(
            read(&json!({"read_only_paths": ["/opt/x"]}))
                .unwrap()
                .read_only_paths,
            [Path::new("/opt/x")]
        );
        assert!(read(&json!({"seccomp": "none"})).is_err());
    }
}
