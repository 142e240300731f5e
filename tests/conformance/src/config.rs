//! What a particular driver needs to be told: a small TOML file, all of it optional.
//!
//! ```toml
//! [settings]                # handed over by Configure
//! [sandbox]
//! image = "debian:12"       # or archive = "/path"; neither: the host's own directories
//! uid = 1000
//! gid = 1000
//! [sandbox.driver_config]
//! [timing]
//! patience_s = 30           # for one answer, or for one sandbox to be ready
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

/// What a particular driver needs to be told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Driver-wide settings.
    pub settings: Map<String, Value>,
    /// What the suite's sandboxes are made of.
    pub sandbox: SandboxConfig,
    /// How long things may take.
    pub timing: Timing,
}

/// What the suite's sandboxes are made of. The image must have `/bin/sh` and the usual small tools.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// An OCI reference.
    pub image: Option<String>,
    /// A path on the driver's host, instead.
    pub archive: Option<PathBuf>,
    /// User of the workload.
    pub uid: u32,
    /// Group of the workload.
    pub gid: u32,
    /// Under the driver's own schema.
    pub driver_config: Map<String, Value>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            image: None,
            archive: None,
            uid: 1000,
            gid: 1000,
            driver_config: Map::new(),
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Seconds for one answer, for one sandbox to be ready, for one command.
    pub patience_s: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { patience_s: 30 }
    }
}

impl Timing {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_s)
    }
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Of the file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It does not say what it should.
    #[error("{path} is not right")]
    Parse {
        /// Of the file.
        path: PathBuf,
        /// What the parser says.
        source: toml::de::Error,
    },
    /// Two images.
    #[error("{path} names both an image and an archive; only one of them can be used")]
    TwoImages {
        /// Of the file.
        path: PathBuf,
    },
    /// Nothing can be answered in no time.
    #[error("{path}: timing.patience_s must be 1 or more")]
    NoPatience {
        /// Of the file.
        path: PathBuf,
    },
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or is not right.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let own = || path.to_owned();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: own(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: own(),
            source,
        })?;
        if config.sandbox.image.is_some() && config.sandbox.archive.is_some() {
            return Err(ConfigError::TwoImages { path: own() });
        }
        if config.timing.patience_s == 0 {
            return Err(ConfigError::NoPatience { path: own() });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path())
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(load("").unwrap(), Config::default());
    }

    #[test]
    fn what_is_said_is_taken() {
        let config = load(
            "[settings]\nregion = 'x'\n[sandbox]\nimage = 'debian:12'\nuid = 5\n\
             [sandbox.driver_config]\na = [1, 2]\n[timing]\npatience_s = 300\n",
        );
        let config = config.unwrap();
        assert_eq!(config.settings["region"], "x");
        assert_eq!(config.sandbox.image.as_deref(), Some("debian:12"));
        assert_eq!((config.sandbox.uid, config.sandbox.gid), (5, 1000));
        assert_eq!(config.sandbox.driver_config["a"][1], 2);
        assert_eq!(config.timing.patience(), Duration::from_secs(300));
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(matches!(
            load("[sandbox]\nimages = 'x'"),
            Err(ConfigError::Parse { .. })
        ));
        assert!(matches!(
            load("[sandbox]\nimage = 'x'\narchive = '/y'"),
            Err(ConfigError::TwoImages { .. })
        ));
        assert!(matches!(
            load("[timing]\npatience_s = 0"),
            Err(ConfigError::NoPatience { .. })
        ));
    }
}
