//! Finding an engine: what the tools of all engines have in common. Each driver adds its own ways.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::endpoint::{Endpoint, TlsFiles};
use crate::settings::Settings;

/// Where the driver runs, as far as an engine's tools would look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The driver's environment.
    pub variables: BTreeMap<String, String>,
    /// Its user.
    pub uid: u32,
    /// The driver is in a container itself.
    pub in_container: bool,
}

impl Surroundings {
    /// Of this process.
    #[must_use]
    pub fn here() -> Self {
        let marks = ["/.dockerenv", "/run/.containerenv"];
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            uid: rustix::process::geteuid().as_raw(),
            in_container: marks.iter().any(|mark| Path::new(mark).exists()),
        }
    }

    /// A variable that is set to something.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// A directory that a variable names, or its default below the home directory.
    #[must_use]
    pub fn directory(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let home = || Some(Path::new(self.variable("HOME")?).join(below_home));
        self.variable(variable).map(PathBuf::from).or_else(home)
    }

    /// The directory for an ordinary user's sockets.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        match self.variable("XDG_RUNTIME_DIR") {
            Some(dir) => dir.into(),
            None => format!("/run/user/{}", self.uid).into(),
        }
    }
}

/// A place where the engine may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its address.
    pub endpoint: Endpoint,
    /// Who says so: "the setting host", "DOCKER_HOST", "the usual place".
    pub origin: String,
}

/// What was found out about where the engine is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Best first. One that somebody named is alone.
    pub candidates: Vec<Candidate>,
    /// What is wrong with what somebody named.
    pub problems: Vec<Problem>,
}

/// Something that was named and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, or the one that would go before it.
    pub setting: &'static str,
    /// What is wrong.
    pub message: String,
}

impl Discovered {
    /// An address that somebody named, with whom to trust there.
    #[must_use]
    pub fn named(
        origin: &str,
        setting: &'static str,
        address: &str,
        tls: Option<&TlsFiles>,
    ) -> Self {
        match Endpoint::parse(address, tls) {
            Ok(endpoint) => Self {
                candidates: vec![Candidate {
                    endpoint,
                    origin: origin.to_owned(),
                }],
                problems: Vec::new(),
            },
            Err(error) => Self::problem(setting, format!("{origin}: {error}")),
        }
    }

    /// Nothing but a problem.
    #[must_use]
    pub fn problem(setting: &'static str, message: impl Into<String>) -> Self {
        Self {
            candidates: Vec::new(),
            problems: vec![Problem {
                setting,
                message: message.into(),
            }],
        }
    }

    /// Sockets in the usual places.
    #[must_use]
    pub fn usual(sockets: impl IntoIterator<Item = PathBuf>) -> Self {
        let candidates = sockets.into_iter().map(|socket| Candidate {
            endpoint: Endpoint::Unix(socket),
            origin: "a usual place".to_owned(),
        });
        Self {
            candidates: candidates.collect(),
            problems: Vec::new(),
        }
    }

    /// What the settings name, if they do.
    #[must_use]
    pub fn from_settings(settings: &Settings) -> Option<Self> {
        let host = settings.host.as_ref()?;
        let tls = settings.tls.as_ref().map(|tls| TlsFiles {
            ca: tls.ca.clone(),
            client: tls.cert.clone().zip(tls.key.clone()),
        });
        Some(Self::named("the setting host", "host", host, tls.as_ref()))
    }
}
