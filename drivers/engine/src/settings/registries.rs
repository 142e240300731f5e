//! The operator's credentials for registries. They reach the driver by `Configure`, and the engine
//! with a pull; they are never shown.

use cofferdam_driver_sdk::proto::{ImageSpec, RegistryCredentials, image_spec};
use serde::Deserialize;

use super::Config;
use crate::image::Reference;

/// What a registry wants: a name and a password, or a token.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySettings {
    /// Of an account.
    pub username: String,
    /// Its password, or what stands for it.
    pub password: String,
    /// Instead of both.
    pub identity_token: String,
}

impl std::fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrySettings")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The image with the operator's credentials for its registry, unless it came with others.
    pub(crate) fn authorised(&self, mut image: ImageSpec) -> ImageSpec {
        if let (None, Some(image_spec::Source::Reference(text))) =
            (&image.credentials, &image.source)
        {
            // One that cannot be read is refused elsewhere.
            let reference = Reference::parse(text).ok();
            image.credentials = reference
                .and_then(|reference| self.registries.get(reference.registry_host()))
                .map(|known| RegistryCredentials {
                    username: known.username.clone(),
                    password: known.password.clone(),
                    identity_token: known.identity_token.clone(),
                });
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use crate::discover::Discovered;
    use crate::settings::Settings;

    use super::*;

    fn image(name: &str) -> ImageSpec {
        ImageSpec {
            source: Some(image_spec::Source::Reference(name.to_owned())),
            ..ImageSpec::default()
        }
    }

    #[test]
    fn each_registry_gets_its_own_credentials_and_nobody_elses() {
        let settings: Settings = serde_json::from_str(
            r#"{"registries": {"r.example:5000": {"username": "u", "password": "hidden"},
                "docker.io": {"identity_token": "t"}}}"#,
        )
        .unwrap();
        assert!(!format!("{settings:?}").contains("hidden"));
        let config = settings.resolve(Discovered::default(), "bridge").unwrap();
        let password = |name: &str| {
            let credentials = config.authorised(image(name)).credentials;
            credentials.map(|known| known.password + &known.identity_token)
        };
        assert_eq!(password("r.example:5000/a/b:1").as_deref(), Some("hidden"));
        assert_eq!(password("debian:12").as_deref(), Some("t"));
        assert_eq!(password("other.example/a"), None);
        let mut own = image("r.example:5000/a");
        own.credentials = Some(RegistryCredentials::default());
        assert_eq!(
            config.authorised(own).credentials,
            Some(RegistryCredentials::default())
        );
    }
}
