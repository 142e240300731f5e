//! Where Docker is, in the order of its own command-line tool: what is set here, `DOCKER_HOST`, the
//! context, the usual places.

mod context;

use std::path::PathBuf;

use cofferdam_driver_engine::discover::{Discovered, Surroundings};
use cofferdam_driver_engine::endpoint::TlsFiles;
use cofferdam_driver_engine::settings::Settings;

pub(crate) fn discover(settings: &Settings, here: &Surroundings) -> Discovered {
    if let Some(named) = Discovered::from_settings(settings) {
        return named;
    }
    if let Some(name) = &settings.context {
        return context::named(name, "the setting context", here);
    }
    if let Some(host) = here.variable("DOCKER_HOST") {
        return Discovered::named("DOCKER_HOST", "host", host, tls(here).as_ref());
    }
    match context::current(here) {
        Some((name, origin)) => context::named(&name, &origin, here),
        None => Discovered::usual(usual(here)),
    }
}

/// `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`.
fn tls(here: &Surroundings) -> Option<TlsFiles> {
    here.variable("DOCKER_TLS_VERIFY")?;
    let dir = here.directory("DOCKER_CERT_PATH", ".docker")?;
    Some(TlsFiles {
        ca: dir.join("ca.pem"),
        client: Some((dir.join("cert.pem"), dir.join("key.pem"))),
    })
}

/// An ordinary user's own engine goes before the system's, which needs a privilege.
fn usual(here: &Surroundings) -> Vec<PathBuf> {
    let system = PathBuf::from("/var/run/docker.sock");
    if here.uid == 0 {
        return vec![system];
    }
    let rootless = here.runtime_dir().join("docker.sock");
    let desktop = here.directory("DOCKER_CONFIG", ".docker");
    let desktop = desktop.map(|dir| dir.join("run/docker.sock"));
    std::iter::once(rootless)
        .chain(desktop)
        .chain([system])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(uid: u32, variables: &[(&str, &str)]) -> Surroundings {
        Surroundings {
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            uid,
            in_container: false,
        }
    }

    fn addresses(found: &Discovered) -> Vec<String> {
        let endpoints = found.candidates.iter();
        endpoints
            .map(|candidate| candidate.endpoint.to_string())
            .collect()
    }

    #[test]
    fn a_user_looks_at_their_own_engine_first() {
        let root = discover(&Settings::default(), &here(0, &[]));
        assert_eq!(addresses(&root), ["unix:///var/run/docker.sock"]);
        let user = here(1000, &[("HOME", "/home/u")]);
        let user = discover(&Settings::default(), &user);
        assert_eq!(
            addresses(&user),
            [
                "unix:///run/user/1000/docker.sock",
                "unix:///home/u/.docker/run/docker.sock",
                "unix:///var/run/docker.sock"
            ]
        );
    }

    #[test]
    fn the_variable_goes_before_the_usual_and_the_setting_before_both() {
        let here = here(
            0,
            &[
                ("DOCKER_HOST", "tcp://h:1"),
                ("DOCKER_TLS_VERIFY", "1"),
                ("DOCKER_CERT_PATH", "/certs"),
            ],
        );
        let found = discover(&Settings::default(), &here);
        assert_eq!(addresses(&found), ["https://h:1"]);
        let settings = Settings {
            host: Some("ssh://u@other".to_owned()),
            ..Settings::default()
        };
        assert_eq!(addresses(&discover(&settings, &here)), ["ssh://u@other"]);
    }

    #[test]
    fn what_was_named_wrong_is_said_and_not_passed_over() {
        let found = discover(&Settings::default(), &here(0, &[("DOCKER_HOST", "what?")]));
        assert!(found.candidates.is_empty());
        assert!(found.problems[0].message.contains("DOCKER_HOST"));
    }
}
