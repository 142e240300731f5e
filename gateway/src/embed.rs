//! A gateway inside another program, for as long as that needs it: nothing of it stays.
//!
//! It reads no configuration files and no environment variables of the service, keeps its records
//! in a private directory, and deletes its sandboxes when it is shut down. Whatever is left by a
//! program that was killed is cleared by the next one of the same user, or ends at its deadline.

mod dead;
mod directory;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::app::{App, StartError};
use crate::config::{self, Config, ConfigError, Flags, Host};
use crate::store::Durability;
pub use dead::{Remains, RemainsError, clear_dead};
use directory::PrivateDirectory;

/// How long deletes may take at the end.
const REMOVE_PATIENCE: Duration = Duration::from_secs(30);

/// Nothing is followed any more when the program asks for the end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// How long the end may be put off for what others have left.
const CLEAR_PATIENCE: Duration = Duration::from_secs(5);

/// What the gateway is to have.
#[derive(Debug, Clone, Default)]
pub struct EmbedOptions {
    /// Where the supervisor and the built-in drivers are.
    pub libexec_dir: PathBuf,
    /// Built-in drivers. Without any driver at all: the one that needs nothing installed.
    pub drivers: Vec<String>,
    /// Drivers that listen on a socket of their own.
    pub driver_sockets: Vec<(String, PathBuf)>,
    /// The driver of those who name none. `None`: as the service chooses it.
    pub default_driver: Option<String>,
}

/// The gateway could not be started; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    #[error("could not make a private directory in {}", base.display())]
    Directory {
        base: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A gateway that runs in this process.
#[derive(Debug)]
pub struct Embedded {
    app: App,
    directory: PrivateDirectory,
    /// Goes on beside it.
    clearing: JoinSet<Vec<Remains>>,
}

/// Starts a gateway on the current runtime, which has to have more than one thread or be driven
/// while it is used. Callers can connect when this returns. Beside it, what those left who were
/// killed is removed.
pub async fn start(options: EmbedOptions) -> Result<Embedded, EmbedError> {
    let host = Host::here();
    let directory = PrivateDirectory::create(&host, &options)?;
    let libexec_dir = options.libexec_dir.clone();
    let config = configure(directory.path(), options, &host)?;
    let app = App::start(config).await?;
    let mut clearing = JoinSet::new();
    clearing.spawn(async move { clear_dead(&libexec_dir, CLEAR_PATIENCE).await });
    Ok(Embedded {
        app,
        directory,
        clearing,
    })
}

/// Everything in one directory, and nothing from files or the service's environment.
fn configure(directory: &Path, options: EmbedOptions, host: &Host) -> Result<Config, ConfigError> {
    let sockets = options.driver_sockets.iter().map(|(name, path)| {
        let mut text = std::ffi::OsString::from(format!("{name}="));
        text.push(path);
        text
    });
    let flags = Flags {
        socket: Some(directory.join("gateway.sock")),
        state_dir: Some(directory.join("state")),
        runtime_dir: Some(directory.join("run")),
        compute_driver_sockets: sockets.collect(),
        libexec: Some(options.libexec_dir),
        drivers: options.drivers,
        default_driver: options.default_driver,
        ..Flags::default()
    };
    let mut config = config::from_flags_alone(&flags, host)?.config;
    config.durability = Durability::Temporary;
    Ok(config)
}

impl Embedded {
    /// Where this process, and others of the same user, can connect.
    pub fn socket(&self) -> &Path {
        self.app.socket()
    }

    /// Waits until the drivers have answered, or have failed to.
    pub async fn ready(&self) {
        self.app.ready().await;
    }

    /// Deletes every sandbox, ends the gateway and removes its files.
    pub async fn shutdown(mut self) {
        self.app.remove_everything(REMOVE_PATIENCE).await;
        self.app.shutdown(DRAIN_PATIENCE).await;
        drop(self.directory);
        while let Some(cleared) = self.clearing.join_next().await {
            if let Err(error) = cleared {
                tracing::warn!(%error, "what killed gateways left was not cleared");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateway_that_cannot_start_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let options = EmbedOptions {
            libexec_dir: home.path().to_owned(),
            ..EmbedOptions::default()
        };
        let error = start(options).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("cofferdam-supervisor does not exist"),
            "{text}"
        );
    }
}
