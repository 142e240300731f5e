//! Podman's connections: addresses that its command-line tool keeps under names. `podman machine`
//! adds its own.
//!
//! ```text
//!   ~/.config/containers/podman-connections.json
//!     {"Connection": {"Default": NAME, "Connections": {NAME: {"URI": "ssh://…"}}}}
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use cofferdam_driver_engine::discover::{Candidate, Discovered, Surroundings};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct FileJson {
    connection: ConnectionsJson,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectionsJson {
    default: String,
    connections: BTreeMap<String, ConnectionJson>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConnectionJson {
    #[serde(rename = "URI")]
    uri: String,
}

/// The engine of a connection.
pub(super) fn named(name: &str, origin: &str, here: &Surroundings) -> Discovered {
    let known = match read(here) {
        Ok(known) => known,
        Err(error) => return Discovered::problem("context", format!("{origin}: {error}")),
    };
    match known.connections.get(name) {
        Some(connection) => Discovered::named(
            &format!("the connection {name}"),
            "context",
            &connection.uri,
            None,
        ),
        None => Discovered::problem(
            "context",
            format!("{origin}: there is no connection {name:?} (podman system connection list)"),
        ),
    }
}

/// The one that Podman would use.
pub(super) fn default(here: &Surroundings) -> Vec<Candidate> {
    // A file that is not there, or that cannot be read, names nothing.
    let known = read(here).unwrap_or_default();
    match known.default.as_str() {
        "" => Vec::new(),
        name => named(name, "the default connection", here).candidates,
    }
}

fn read(here: &Surroundings) -> Result<ConnectionsJson, String> {
    let path = path(here).ok_or("connections cannot be looked up: HOME is not set")?;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let file: FileJson = serde_json::from_str(&text)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(file.connection)
}

fn path(here: &Surroundings) -> Option<PathBuf> {
    if let Some(path) = here.variable("PODMAN_CONNECTIONS_CONF") {
        return Some(path.into());
    }
    let config = here.directory("XDG_CONFIG_HOME", ".config")?;
    Some(config.join("containers/podman-connections.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(dir: &std::path::Path) -> Surroundings {
        let dir = dir.to_str().unwrap().to_owned();
        Surroundings {
            variables: [("XDG_CONFIG_HOME".to_owned(), dir)].into(),
            ..Surroundings::default()
        }
    }

    #[test]
    fn the_default_connection_is_a_candidate() {
        let dir = tempfile::tempdir().unwrap();
        let here = here(dir.path());
        assert_eq!(default(&here), []);
        let path = dir.path().join("containers/podman-connections.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = r#"{"Connection":{"Default":"m","Connections":
            {"m":{"URI":"ssh://core@127.0.0.1:2222/run/podman.sock"}}}}"#;
        std::fs::write(path, text).unwrap();
        let found = default(&here);
        let address = found[0].endpoint.to_string();
        assert_eq!(address, "ssh://core@127.0.0.1:2222/run/podman.sock");
        let missing = named("x", "the setting context", &here);
        assert!(missing.problems[0].message.contains("\"x\""));
    }
}
