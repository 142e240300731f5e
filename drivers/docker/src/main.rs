//! The Docker driver as a program: Docker's own ways of being found, and the shared core.

mod discover;

use std::process::ExitCode;

use cofferdam_driver_engine::discover::{Discovered, Surroundings};
use cofferdam_driver_engine::settings::Settings;
use cofferdam_driver_engine::{EngineDriver, Flavor};

/// Docker 20.10 and later.
struct Docker;

impl Flavor for Docker {
    const NAME: &'static str = "docker";
    const TITLE: &'static str = "Docker";
    const CLIENT: &'static str = "docker";
    const LOG_DRIVER: &'static str = "json-file";
    const OPEN_NETWORK: &'static str = "bridge";
    const START_HINT: &'static str = "systemctl start docker";
    const VOLUMES_FOLLOW_USER: bool = false;
    const PUTS_AWAY_LATE: bool = false;
    const CHECKS_MOUNTS_FIRST: bool = true;

    fn discover(settings: &Settings, here: &Surroundings) -> Discovered {
        discover::discover(settings, here)
    }
}

fn main() -> ExitCode {
    cofferdam_driver_sdk::run(|context| EngineDriver::<Docker>::new(context, Surroundings::here()))
}
