//! Which drivers an operator wants, and where they come from.

use std::path::PathBuf;

use crate::model::DriverName;

/// One driver of the gateway's configuration.
#[derive(Clone)]
pub struct DriverSpec {
    pub name: DriverName,
    pub source: DriverSource,
    /// Driver-wide settings. May hold credentials.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// Who starts a driver's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverSource {
    /// The gateway does, and keeps it alive.
    BuiltIn { program: PathBuf },
    /// Its operator does; it listens here.
    Socket { path: PathBuf },
}

impl std::fmt::Debug for DriverSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings: Vec<&String> = self.settings.keys().collect();
        f.debug_struct("DriverSpec")
            .field("name", &self.name)
            .field("source", &self.source)
            .field("settings", &settings)
            .finish()
    }
}
