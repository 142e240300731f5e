//! The Podman driver as a program: Podman's own ways of being found, and the shared core, over
//! Podman's Docker-compatible API.

mod discover;

use std::process::ExitCode;

use cofferdam_driver_engine::discover::{Discovered, Surroundings};
use cofferdam_driver_engine::settings::Settings;
use cofferdam_driver_engine::{EngineDriver, Flavor};

/// Podman 4 and later, with or without root.
struct Podman;

impl Flavor for Podman {
    const NAME: &'static str = "podman";
    const TITLE: &'static str = "Podman";
    const CLIENT: &'static str = "podman";
    const LOG_DRIVER: &'static str = "k8s-file";
    const OPEN_NETWORK: &'static str = "podman";
    const START_HINT: &'static str =
        "systemctl --user start podman.socket, or as root without --user";
    const VOLUMES_FOLLOW_USER: bool = true;
    const PUTS_AWAY_LATE: bool = true;
    const CHECKS_MOUNTS_FIRST: bool = false;

    fn discover(settings: &Settings, here: &Surroundings) -> Discovered {
        discover::discover(settings, here)
    }
}

fn main() -> ExitCode {
    cofferdam_driver_sdk::run(|context| EngineDriver::<Podman>::new(context, Surroundings::here()))
}
