//! What one engine does otherwise than its neighbours. Everything else is the same for all.

use crate::discover::{Discovered, Surroundings};
use crate::settings::Settings;

/// An engine that has a driver.
pub trait Flavor: Send + Sync + 'static {
    /// The driver's name: `docker`.
    const NAME: &'static str;
    /// As people write it: `Docker`.
    const TITLE: &'static str;
    /// The program that speaks for the engine on another host, by `system dial-stdio`.
    const CLIENT: &'static str;
    /// The log driver that keeps a bounded file and can be read back.
    const LOG_DRIVER: &'static str;
    /// The network of containers that may have one.
    const OPEN_NETWORK: &'static str;
    /// How a person starts the engine.
    const START_HINT: &'static str;
    /// A new volume belongs to the user of the first container that uses it.
    const VOLUMES_FOLLOW_USER: bool;

    /// What a container's end leaves is put away by a process that comes some time after it, and may meet
    /// the container when it is made ready for its next start.
    const PUTS_AWAY_LATE: bool;

    /// A create with a mount that cannot be and an image that is not there fails for the mount.
    const CHECKS_MOUNTS_FIRST: bool;

    /// Where the engine is, as this engine's own tools would find it.
    fn discover(settings: &Settings, here: &Surroundings) -> Discovered;
}
