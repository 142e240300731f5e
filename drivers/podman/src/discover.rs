//! Where Podman is, in the order of its own command-line tool: what is set here, `CONTAINER_HOST`,
//! the connection (a `podman machine` is one), the usual places.

mod connection;

use std::path::PathBuf;

use cofferdam_driver_engine::discover::{Discovered, Surroundings};
use cofferdam_driver_engine::settings::Settings;

pub(crate) fn discover(settings: &Settings, here: &Surroundings) -> Discovered {
    if let Some(named) = Discovered::from_settings(settings) {
        return named;
    }
    if let Some(name) = &settings.context {
        return connection::named(name, "the setting context", here);
    }
    if let Some(host) = here.variable("CONTAINER_HOST") {
        return Discovered::named("CONTAINER_HOST", "host", host, None);
    }
    if let Some(name) = here.variable("CONTAINER_CONNECTION") {
        return connection::named(name, "CONTAINER_CONNECTION", here);
    }
    let mut usual = Discovered::usual(usual(here));
    // On a host with an engine of its own the connection is the second choice.
    usual.candidates.extend(connection::default(here));
    usual
}

/// An ordinary user's own engine goes before the system's, which needs a privilege.
fn usual(here: &Surroundings) -> Vec<PathBuf> {
    let system = PathBuf::from("/run/podman/podman.sock");
    match here.uid {
        0 => vec![system],
        _ => vec![here.runtime_dir().join("podman/podman.sock"), system],
    }
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
    fn rootless_goes_first_for_a_user() {
        let user = here(1000, &[("XDG_RUNTIME_DIR", "/run/user/1000")]);
        assert_eq!(
            addresses(&discover(&Settings::default(), &user)),
            [
                "unix:///run/user/1000/podman/podman.sock",
                "unix:///run/podman/podman.sock"
            ]
        );
        let root = discover(&Settings::default(), &here(0, &[]));
        assert_eq!(addresses(&root), ["unix:///run/podman/podman.sock"]);
    }

    #[test]
    fn a_host_that_somebody_named_is_the_only_one() {
        let here = here(1000, &[("CONTAINER_HOST", "ssh://u@h/run/podman.sock")]);
        let found = discover(&Settings::default(), &here);
        assert_eq!(addresses(&found), ["ssh://u@h/run/podman.sock"]);
    }
}
