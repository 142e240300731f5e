//! Docker's contexts: addresses that its command-line tool keeps under names.
//!
//! ```text
//!   ~/.docker/config.json                       "currentContext": NAME
//!   ~/.docker/contexts/meta/<sha256 of NAME>/meta.json   the address
//!   ~/.docker/contexts/tls/<sha256 of NAME>/docker/      ca.pem cert.pem key.pem
//! ```

use std::path::{Path, PathBuf};

use cofferdam_driver_engine::discover::{Discovered, Surroundings};
use cofferdam_driver_engine::endpoint::TlsFiles;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Means "no context": the variable or the usual places.
const DEFAULT: &str = "default";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConfigJson {
    current_context: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetaJson {
    endpoints: EndpointsJson,
}

#[derive(Debug, Deserialize)]
struct EndpointsJson {
    docker: EndpointJson,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointJson {
    host: String,
}

/// The name of the context that is in use, and who says so.
pub(super) fn current(here: &Surroundings) -> Option<(String, String)> {
    let (name, origin) = match here.variable("DOCKER_CONTEXT") {
        Some(name) => (name.to_owned(), "DOCKER_CONTEXT".to_owned()),
        None => {
            let path = directory(here)?.join("config.json");
            let text = std::fs::read_to_string(&path).ok()?;
            // A file that cannot be read is Docker's own affair.
            let config: ConfigJson = serde_json::from_str(&text).ok()?;
            (config.current_context, path.display().to_string())
        }
    };
    (!name.is_empty() && name != DEFAULT).then_some((name, origin))
}

/// The engine of a context.
pub(super) fn named(name: &str, origin: &str, here: &Surroundings) -> Discovered {
    let problem = |what: String| {
        Discovered::problem("context", format!("{origin}: the context {name:?} {what}"))
    };
    let Some(contexts) = directory(here).map(|dir| dir.join("contexts")) else {
        return problem("cannot be looked up: HOME is not set".to_owned());
    };
    let id = id(name);
    let meta = contexts.join("meta").join(&id).join("meta.json");
    let text = match std::fs::read_to_string(&meta) {
        Ok(text) => text,
        Err(error) => return problem(format!("cannot be read from {}: {error}", meta.display())),
    };
    let endpoint = match serde_json::from_str::<MetaJson>(&text) {
        Ok(meta) => meta.endpoints.docker,
        Err(error) => return problem(format!("names no engine: {error}")),
    };
    let files = tls(&contexts.join("tls").join(&id).join("docker"));
    let origin = format!("the context {name}");
    Discovered::named(&origin, "context", &endpoint.host, files.as_ref())
}

fn tls(dir: &Path) -> Option<TlsFiles> {
    let (ca, cert, key) = (
        dir.join("ca.pem"),
        dir.join("cert.pem"),
        dir.join("key.pem"),
    );
    ca.is_file().then(|| TlsFiles {
        ca,
        client: (cert.is_file() && key.is_file()).then_some((cert, key)),
    })
}

fn directory(here: &Surroundings) -> Option<PathBuf> {
    here.directory("DOCKER_CONFIG", ".docker")
}

fn id(name: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(dir: &Path) -> Surroundings {
        let dir = dir.to_str().unwrap().to_owned();
        Surroundings {
            variables: [("DOCKER_CONFIG".to_owned(), dir)].into(),
            ..Surroundings::default()
        }
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_current_context_is_followed_with_its_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let here = here(dir.path());
        assert_eq!(current(&here), None);
        write(
            &dir.path().join("config.json"),
            r#"{"currentContext": "far"}"#,
        );
        let (name, origin) = current(&here).unwrap();
        assert_eq!(name, "far");
        let contexts = dir.path().join("contexts");
        let meta = contexts.join("meta").join(id("far")).join("meta.json");
        write(
            &meta,
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376"}}}"#,
        );
        let ca = contexts.join("tls").join(id("far")).join("docker/ca.pem");
        write(&ca, "");
        let found = named(&name, &origin, &here);
        assert_eq!(found.candidates[0].endpoint.to_string(), "https://far:2376");
        assert_eq!(found.candidates[0].origin, "the context far");
    }

    #[test]
    fn a_context_that_is_not_there_is_a_problem() {
        let dir = tempfile::tempdir().unwrap();
        let found = named("gone", "DOCKER_CONTEXT", &here(dir.path()));
        assert!(found.problems[0].message.contains("\"gone\""));
        assert_eq!(found.problems[0].setting, "context");
    }
}
