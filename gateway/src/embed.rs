//! A gateway inside another program, for as long as that needs it: nothing of it stays.
//!
//! It reads no configuration files and no environment variables of the service, keeps its records
//! in a private directory, and deletes its sandboxes when it is shut down. Whatever is left by a
//! program that was killed ends at its deadline.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::app::{App, StartError};
use crate::config::{self, ConfigError, Flags, Host};
use crate::store::Durability;

/// How long deletes may take at the end.
const REMOVE_PATIENCE: Duration = Duration::from_secs(30);

/// Nothing is followed any more when the program asks for the end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

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
}

/// Starts a gateway on the current runtime, which has to have more than one thread or be driven
/// while it is used. Callers can connect when this returns.
pub async fn start(options: EmbedOptions) -> Result<Embedded, EmbedError> {
    let host = Host::here();
    let directory = PrivateDirectory::create(&host)?;
    let sockets = options.driver_sockets.iter().map(|(name, path)| {
        let mut text = std::ffi::OsString::from(format!("{name}="));
        text.push(path);
        text
    });
    let flags = Flags {
        socket: Some(directory.path.join("gateway.sock")),
        state_dir: Some(directory.path.join("state")),
        runtime_dir: Some(directory.path.join("run")),
        libexec: Some(options.libexec_dir),
        drivers: options.drivers,
        compute_driver_sockets: sockets.collect(),
        default_driver: options.default_driver,
        ..Flags::default()
    };
    let mut config = config::from_flags_alone(&flags, &host)?.config;
    config.durability = Durability::Temporary;
    let app = App::start(config).await?;
    Ok(Embedded { app, directory })
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
    pub async fn shutdown(self) {
        self.app.remove_everything(REMOVE_PATIENCE).await;
        self.app.shutdown(DRAIN_PATIENCE).await;
        drop(self.directory);
    }
}

/// Gone with everything in it when it is dropped.
#[derive(Debug)]
struct PrivateDirectory {
    path: PathBuf,
}

impl PrivateDirectory {
    /// In the user's runtime directory, or in /tmp: the paths of sockets have to be short.
    fn create(host: &Host) -> Result<Self, EmbedError> {
        let runtime = host.environment.get("XDG_RUNTIME_DIR").map(PathBuf::from);
        let runtime = runtime.filter(|path| path.is_absolute() && path.as_os_str().len() < 60);
        let bases = runtime.into_iter().chain([PathBuf::from("/tmp")]);
        let mut last = None;
        for base in bases {
            match make_in(&base) {
                Ok(path) => return Ok(Self { path }),
                Err(source) => last = Some(EmbedError::Directory { base, source }),
            }
        }
        Err(last.unwrap_or_else(|| EmbedError::Directory {
            base: PathBuf::from("/tmp"),
            source: io::ErrorKind::NotFound.into(),
        }))
    }
}

fn make_in(base: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let name = format!("cofferdam-{}", hex::encode(rand::random::<[u8; 6]>()));
    let path = base.join(name);
    // Not recursive: a directory of that name that is there already is somebody else's.
    std::fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a directory was left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn host(runtime: Option<&Path>) -> Host {
        let mut host = Host::here();
        host.environment.remove("XDG_RUNTIME_DIR");
        if let Some(runtime) = runtime {
            host.environment
                .insert("XDG_RUNTIME_DIR".to_owned(), runtime.into());
        }
        host
    }

    #[test]
    fn the_directory_is_private_short_and_gone_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let directory = PrivateDirectory::create(&host(Some(home.path()))).unwrap();
        let path = directory.path.clone();
        assert!(path.starts_with(home.path()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(path.join("file"), b"x").unwrap();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn without_a_usable_runtime_directory_it_is_in_tmp() {
        let missing = host(Some(Path::new("/not/there")));
        for host in [host(None), missing] {
            let directory = PrivateDirectory::create(&host).unwrap();
            assert!(directory.path.starts_with("/tmp"));
        }
    }

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
