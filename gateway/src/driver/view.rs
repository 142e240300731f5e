//! What is known of a driver now, for admission, `doctor` and people.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Capabilities;
use super::notices::Notices;
use crate::model::{DriverName, LimitSet};

/// A driver at one moment. What was learned in a handshake stays when the connection is lost.
#[derive(Debug, Clone, PartialEq)]
pub struct DriverView {
    pub name: DriverName,
    pub state: DriverState,
    pub built_in: bool,
    pub socket: PathBuf,
    /// The program, if the gateway starts it.
    pub path: Option<PathBuf>,
    /// The process, while it runs, if the gateway starts it.
    pub pid: Option<u32>,
    /// What is wrong, one sentence; empty when nothing is.
    pub error: String,
    /// What to do about it; empty when nothing is known.
    pub fix: String,
    /// What the driver calls itself.
    pub driver_name: String,
    pub version: String,
    pub incarnation: String,
    /// Revision of the contract in use.
    pub contract: u32,
    pub description: String,
    pub settings_schema: String,
    pub driver_config_schema: String,
    /// `None` until the first handshake.
    pub capabilities: Option<Capabilities>,
    /// `None` until it was connected once.
    pub fingerprint: Option<Fingerprint>,
    /// How often the handshake succeeded.
    pub connects: u32,
    /// What the gateway itself has noticed.
    pub notices: Notices,
}

/// Whether a driver can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DriverState {
    /// Not reached yet, or lost: the gateway is trying.
    Connecting,
    /// Handshake, settings and fingerprint are done.
    Connected,
    /// It was refused for a reason that only an operator can mend.
    Refused,
}

/// The platform's health and facts, as the driver sees them.
#[derive(Debug, Clone, PartialEq)]
pub struct Fingerprint {
    pub health: Health,
    pub reason: String,
    pub fix: String,
    pub attributes: BTreeMap<String, String>,
    pub capacity: Resources,
    pub used: Resources,
    /// What of the limits in the capabilities holds now.
    pub limits: LimitSet,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// The driver did not say, or said something that this gateway does not know.
    Unknown,
    Undetected,
    Unhealthy,
    Healthy,
}

/// `None`: not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    pub sandboxes: Option<u64>,
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub id: String,
    pub result: CheckResult,
    pub detail: String,
    pub fix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    Unknown,
    Passed,
    Warning,
    Failed,
}

impl DriverView {
    /// Nothing is known but the configuration.
    pub(super) fn new(name: DriverName, socket: PathBuf, path: Option<PathBuf>) -> Self {
        Self {
            name,
            state: DriverState::Connecting,
            built_in: path.is_some(),
            socket,
            path,
            pid: None,
            error: String::new(),
            fix: String::new(),
            driver_name: String::new(),
            version: String::new(),
            incarnation: String::new(),
            contract: 0,
            description: String::new(),
            settings_schema: String::new(),
            driver_config_schema: String::new(),
            capabilities: None,
            fingerprint: None,
            connects: 0,
            notices: Notices::default(),
        }
    }

    /// Connected, and its platform is healthy: sandboxes can be made.
    pub fn is_usable(&self) -> bool {
        self.state == DriverState::Connected
            && (self.fingerprint.as_ref()).is_some_and(|f| f.health == Health::Healthy)
    }

    /// An error of a driver that others start: they have to find it.
    pub(super) fn with_socket(&self, error: &str) -> String {
        let socket = self.socket.to_string_lossy();
        if self.built_in || error.contains(&*socket) {
            return error.to_owned();
        }
        format!("{socket}: {error}")
    }

    /// The first attempt has ended, one way or the other.
    pub fn is_settled(&self) -> bool {
        self.state != DriverState::Connecting || !self.error.is_empty()
    }

    /// Why it is not usable and what to do, as far as anyone knows.
    pub fn trouble(&self) -> Option<(String, String)> {
        if self.is_usable() {
            return None;
        }
        if self.state != DriverState::Connected {
            return Some(match self.error.as_str() {
                "" => (
                    self.with_socket("it does not answer yet"),
                    "wait a moment; if it stays so, see what listens on its socket".to_owned(),
                ),
                error => (error.to_owned(), self.fix.clone()),
            });
        }
        let (reason, fix) = (self.fingerprint.as_ref())
            .map(|f| (f.reason.clone(), f.fix.clone()))
            .unwrap_or_default();
        let reason = match reason.as_str() {
            "" => "its platform is not healthy".to_owned(),
            _ => reason,
        };
        Some((reason, fix))
    }
}
