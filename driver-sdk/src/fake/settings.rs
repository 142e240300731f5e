//! What the fake driver can be told to be.

use serde::Deserialize;

/// Settings of the fake.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FakeSettings {
    /// Whether a sandbox runs the gateway's supervisor. Otherwise it is only said to be running.
    pub run_supervisor: bool,
    /// Whether the driver runs commands itself, as one for a platform without byte streams does.
    /// Then no supervisor is run.
    pub run_commands: bool,
}

impl Default for FakeSettings {
    fn default() -> Self {
        Self {
            run_supervisor: true,
            run_commands: false,
        }
    }
}

pub(super) const SETTINGS_SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "run_supervisor": {
      "type": "boolean",
      "default": true,
      "description": "Run the gateway's supervisor as a plain child process in each sandbox."
    },
    "run_commands": {
      "type": "boolean",
      "default": false,
      "description": "Be driver-executed: run commands as plain child processes, and no supervisor."
    }
  }
}"#;
