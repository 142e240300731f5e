//! A look at what the service of this user would start with, for when none runs.

use std::path::PathBuf;

use crate::config::{self, ConfigError, Flags, Host};
use crate::store::{Store, StoreError};

/// What was found.
#[derive(Debug)]
pub struct Examined {
    pub state_dir: PathBuf,
    /// False: it has never run.
    pub store: Result<bool, StoreError>,
}

/// Changes nothing.
pub async fn examine(host: &Host) -> Result<Examined, ConfigError> {
    let config = config::load(&Flags::default(), host)?.config;
    let store = Store::examine(&config.state_dir.join("gateway.db")).await;
    Ok(Examined {
        state_dir: config.state_dir,
        store,
    })
}
