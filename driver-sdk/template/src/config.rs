//! Settings: what an operator writes in the gateway's configuration, and what it resolves to.
//!
//! ```toml
//! [drivers.skeleton.settings]
//! state_dir = "/var/lib/cofferdam-driver-skeleton"
//! ```
//!
//! The gateway checks settings against the schema before they come here, and so does the SDK; what
//! is left are defaults, and problems that no schema can see.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_driver_sdk::proto::FieldViolation;
use cofferdam_driver_sdk::spec::Violations;
use serde::Deserialize;

/// JSON Schema of [`Settings`].
pub const SETTINGS_SCHEMA: &str = include_str!("config/settings.schema.json");

/// JSON Schema of [`DriverConfig`].
pub const DRIVER_CONFIG_SCHEMA: &str = include_str!("config/driver_config.schema.json");

/// Driver-wide settings, as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where sandboxes and their records are.
    pub state_dir: Option<PathBuf>,
    /// The supervisor's binary, if the gateway's path cannot be reached from here.
    pub supervisor_path: Option<PathBuf>,
    /// How long a launch may take.
    pub launch_timeout_ms: Option<u64>,
}

/// What a caller may say to this driver alone: `cofferdam run --driver-config '{"nice": 10}'`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriverConfig {
    /// The sandbox's niceness.
    pub nice: i32,
}

/// Settings with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Absolute.
    pub state_dir: PathBuf,
    /// As in the settings.
    pub supervisor_path: Option<PathBuf>,
    /// As in the settings.
    pub launch_timeout: Duration,
    /// The program that keeps a sandbox: this one.
    pub keeper: PathBuf,
}

/// A launch takes milliseconds; on a host that swaps, seconds.
const LAUNCH_TIMEOUT_MS_DEFAULT: u64 = 10_000;

/// Where the driver runs, as far as defaults depend on it. Taken together, so that a test can make
/// one up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Of the systemd unit, or of the user.
    pub state_dir: Option<PathBuf>,
    /// This program.
    pub program: Option<PathBuf>,
}

impl Surroundings {
    /// Of this process.
    pub fn here() -> Self {
        let variable = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from);
            value.filter(|path| path.is_absolute())
        };
        let below = |base: PathBuf| base.join("cofferdam/drivers/skeleton");
        let of_the_user = || {
            // Root's home is closed to the users that workloads run as.
            if rustix::process::geteuid().is_root() {
                return Some(PathBuf::from("/var/lib/cofferdam-driver-skeleton"));
            }
            let home = || variable("HOME").map(|home| home.join(".local/state"));
            variable("XDG_STATE_HOME").or_else(home).map(below)
        };
        let state_dir = variable("STATE_DIRECTORY").or_else(of_the_user);
        Self {
            state_dir,
            program: std::env::current_exe().ok(),
        }
    }
}

impl Settings {
    /// Fills in defaults.
    ///
    /// # Errors
    /// Everything that is wrong, with the setting's name.
    pub fn resolve(self, here: &Surroundings) -> Result<Config, Vec<FieldViolation>> {
        let mut found = Violations::new();
        let state_dir = self.state_dir.or_else(|| here.state_dir.clone());
        found.check(
            state_dir.as_deref().is_none_or(Path::is_absolute),
            "state_dir",
            "must be an absolute path",
        );
        found.check(
            state_dir.is_some(),
            "state_dir",
            "must be set: the environment has neither STATE_DIRECTORY nor XDG_STATE_HOME nor HOME",
        );
        found.check(
            here.program.is_some(),
            "",
            "the kernel does not say which program this is: mount /proc",
        );
        let millis = self.launch_timeout_ms.unwrap_or(LAUNCH_TIMEOUT_MS_DEFAULT);
        match (state_dir, here.program.clone(), found.into_vec()) {
            (Some(state_dir), Some(keeper), problems) if problems.is_empty() => Ok(Config {
                state_dir,
                supervisor_path: self.supervisor_path,
                launch_timeout: Duration::from_millis(millis),
                keeper,
            }),
            (_, _, problems) => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Surroundings {
        Surroundings {
            state_dir: Some("/home/me/state".into()),
            program: Some("/usr/libexec/driver".into()),
        }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = Settings::default().resolve(&here()).unwrap();
        assert_eq!(config.state_dir, Path::new("/home/me/state"));
        assert_eq!(config.launch_timeout, Duration::from_secs(10));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let nowhere = Surroundings {
            state_dir: None,
            ..here()
        };
        let problems = Settings::default().resolve(&nowhere).unwrap_err();
        assert_eq!(problems[0].field, "state_dir");
        let relative = Settings {
            state_dir: Some("state".into()),
            ..Settings::default()
        };
        assert_eq!(relative.resolve(&here()).unwrap_err().len(), 1);
    }

    #[test]
    fn the_schemas_know_every_field() {
        let schema: serde_json::Value = serde_json::from_str(SETTINGS_SCHEMA).unwrap();
        let all = r#"{"state_dir": "/s", "supervisor_path": "/p", "launch_timeout_ms": 100}"#;
        let written: serde_json::Value = serde_json::from_str(all).unwrap();
        serde_json::from_value::<Settings>(written.clone()).unwrap();
        let names = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(names(&schema["properties"]), names(&written));
        let schema: serde_json::Value = serde_json::from_str(DRIVER_CONFIG_SCHEMA).unwrap();
        assert_eq!(names(&schema["properties"]), ["nice"]);
        serde_json::from_str::<DriverConfig>(r#"{"nice": 1}"#).unwrap();
    }
}
