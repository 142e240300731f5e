//! What embedded gateways left whose programs were killed: each is started once more, only to
//! remove its sandboxes in the ordinary way, whichever driver made them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::directory::PrivateDirectory;
use super::{DRAIN_PATIENCE, EmbedError, configure};
use crate::app::App;
use crate::config::Host;

/// What became of one of them.
#[derive(Debug)]
pub struct Remains {
    pub directory: PathBuf,
    /// How many sandboxes it had, or why it is still there.
    pub removed: Result<usize, RemainsError>,
}

/// Something of a dead gateway could not be removed; whoever comes next tries again.
#[derive(Debug, thiserror::Error)]
pub enum RemainsError {
    #[error("cannot read what it was started with")]
    Options(#[source] std::io::Error),
    #[error(transparent)]
    Embed(#[from] EmbedError),
    #[error("{left} of its sandboxes could not be removed yet; their lifetime ends them")]
    Late { left: usize },
}

/// Removes what the dead of this user have left, as far as that can be done in this time.
pub async fn clear_dead(libexec_dir: &Path, patience: Duration) -> Vec<Remains> {
    let deadline = Instant::now() + patience;
    let look = || PrivateDirectory::of_the_dead(&Host::here());
    let found = match tokio::task::spawn_blocking(look).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "what killed gateways left was not looked for");
            return Vec::new();
        }
    };
    let mut all = Vec::new();
    for dead in found {
        let directory = dead.path().to_owned();
        let removed = clear(&dead, libexec_dir, deadline).await;
        match &removed {
            Ok(sandboxes) => {
                tracing::info!(directory = %directory.display(), sandboxes, "cleared after a killed gateway");
                drop(dead);
            }
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "not cleared after a killed gateway");
                dead.keep();
            }
        }
        all.push(Remains { directory, removed });
    }
    all
}

async fn clear(
    dead: &PrivateDirectory,
    libexec_dir: &Path,
    deadline: Instant,
) -> Result<usize, RemainsError> {
    if !dead.path().join("state/gateway.db").exists() {
        // It had not come so far as to make anything.
        return Ok(0);
    }
    let options = dead.options(libexec_dir).map_err(RemainsError::Options)?;
    let config = configure(dead.path(), options, &Host::here()).map_err(EmbedError::from)?;
    let app = App::start(config).await.map_err(EmbedError::from)?;
    let sandboxes = app.sandboxes_left();
    // Drivers that do not answer are not waited for twice.
    let _ready = tokio::time::timeout_at(deadline, app.ready()).await;
    app.remove_everything(deadline.saturating_duration_since(Instant::now()))
        .await;
    let left = app.sandboxes_left();
    app.shutdown(DRAIN_PATIENCE).await;
    match left {
        0 => Ok(sandboxes),
        left => Err(RemainsError::Late { left }),
    }
}
