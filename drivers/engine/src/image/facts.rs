//! What of an image matters to a sandbox. Pure.

use std::collections::BTreeMap;

use super::error::{ImageError, Problem};
use crate::client::wire::ImageJson;
use crate::facts::{EngineFacts, oci_architecture};

/// An image on the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageFacts {
    /// The engine's own name for exactly these bytes.
    pub(crate) id: String,
    /// As the caller named it.
    pub(crate) name: String,
    /// Of the manifest where it came from a registry, else the id.
    pub(crate) digest: String,
    /// What it wants every program to have.
    pub(crate) environment: BTreeMap<String, String>,
    /// Its own user and group, if they are numbers and not 0.
    pub(crate) user: Option<(u32, u32)>,
    /// Where it declares volumes.
    pub(crate) volumes: Vec<String>,
}

impl ImageFacts {
    /// Checks that it can run here. `platform` is what the caller asked for, if anything.
    pub(crate) fn examine(
        name: &str,
        repository: Option<&str>,
        platform: &str,
        image: &ImageJson,
        engine: &EngineFacts,
    ) -> Result<Self, ImageError> {
        let wanted = match platform {
            "" => format!("linux/{}", engine.architecture),
            platform => platform.to_owned(),
        };
        let mut parts = wanted.split('/');
        let (os, architecture) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let fits = |found: &str, wanted: &str| {
            found.is_empty() || wanted.is_empty() || found == oci_architecture(wanted)
        };
        if !fits(&image.os, os) || !fits(&image.architecture, architecture) {
            return Err(ImageError::new(
                Problem::WrongPlatform,
                name,
                format!(
                    "it is for {}/{}, and {wanted} is needed",
                    image.os, image.architecture
                ),
            ));
        }
        let environment = image.config.env.iter();
        Ok(Self {
            id: image.id.clone(),
            name: name.to_owned(),
            digest: digest(repository, image),
            environment: environment
                .filter_map(|pair| pair.split_once('='))
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            user: user(&image.config.user),
            volumes: image.config.volumes.keys().cloned().collect(),
        })
    }
}

/// One image may have come from several repositories; the one that was asked for counts.
fn digest(repository: Option<&str>, image: &ImageJson) -> String {
    let mut pairs = image
        .repo_digests
        .iter()
        .filter_map(|pair| pair.split_once('@'));
    let is_same = |found: &str| {
        repository.is_some_and(|wanted| {
            found == wanted
                || found
                    .strip_suffix(wanted)
                    .is_some_and(|registry| registry.ends_with('/'))
        })
    };
    match pairs.find(|(found, _)| is_same(found)) {
        Some((_, digest)) => digest.to_owned(),
        None => with_algorithm(&image.id),
    }
}

/// Podman leaves the algorithm out of an id.
fn with_algorithm(id: &str) -> String {
    match id.contains(':') || id.is_empty() {
        true => id.to_owned(),
        false => format!("sha256:{id}"),
    }
}

fn user(text: &str) -> Option<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    (uid != 0).then_some((uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::wire::ConfigJson;

    fn image() -> ImageJson {
        ImageJson {
            id: "sha256:11".to_owned(),
            repo_digests: vec![
                "other@sha256:33".to_owned(),
                "docker.io/library/app@sha256:22".to_owned(),
            ],
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            config: ConfigJson {
                env: vec![
                    "PATH=/a:/b".to_owned(),
                    "EMPTY=".to_owned(),
                    "odd".to_owned(),
                ],
                user: "65532".to_owned(),
                ..ConfigJson::default()
            },
        }
    }

    fn examine(repository: &str, platform: &str) -> Result<ImageFacts, ImageError> {
        let engine = EngineFacts {
            architecture: "amd64".to_owned(),
            ..EngineFacts::default()
        };
        ImageFacts::examine("app", Some(repository), platform, &image(), &engine)
    }

    #[test]
    fn the_digest_is_of_the_repository_that_was_asked_for() {
        assert_eq!(examine("app", "").unwrap().digest, "sha256:22");
        assert_eq!(examine("other", "").unwrap().digest, "sha256:33");
        assert_eq!(examine("p", "").unwrap().digest, "sha256:11");
        assert_eq!(with_algorithm("ab"), "sha256:ab");
    }

    #[test]
    fn environment_and_user_are_read() {
        let facts = examine("app", "linux/amd64").unwrap();
        assert_eq!(facts.environment.len(), 2);
        assert_eq!(facts.user, Some((65532, 65532)));
        assert_eq!(user("1000:100"), Some((1000, 100)));
        for none in ["", "0", "0:5", "nobody", "1000:staff"] {
            assert_eq!(user(none), None, "{none}");
        }
    }

    #[test]
    fn another_platform_is_refused() {
        let error = examine("app", "linux/arm64").unwrap_err();
        assert_eq!(error.problem, Problem::WrongPlatform);
        assert!(examine("app", "linux/x86_64").is_ok());
    }
}
