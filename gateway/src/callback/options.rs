//! What a callback needs from the rest of the gateway.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::model::{SandboxId, Token};

/// Everything that a callback is opened with.
#[derive(Clone)]
pub struct CallbackOptions {
    /// Directories of callbacks are made below `<runtime_dir>/callback/`.
    pub runtime_dir: PathBuf,
    pub sandbox_id: SandboxId,
    pub gateway_id: String,
    pub tokens: Arc<dyn TokenStore>,
    /// As stored.
    pub initial: Tokens,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
}

/// The tokens that a supervisor may prove itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub current: Token,
    /// Offered in a session that has not been confirmed yet.
    pub next: Option<Token>,
}

/// Why tokens could not be stored.
pub type TokenStoreError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps tokens over restarts of the gateway.
pub trait TokenStore: Send + Sync {
    /// Stores both before it answers: after a crash the supervisor may hold either. They are equal
    /// once the supervisor has confirmed the new one.
    fn rotate<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        current: &'a Token,
        next: &'a Token,
    ) -> BoxFuture<'a, Result<(), TokenStoreError>>;
}

impl std::fmt::Debug for CallbackOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallbackOptions")
            .field("runtime_dir", &self.runtime_dir)
            .field("sandbox_id", &self.sandbox_id)
            .finish_non_exhaustive()
    }
}
