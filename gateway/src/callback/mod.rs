//! The callback: one socket per sandbox, on which that sandbox's supervisor reaches the gateway.
//!
//! ```text
//!  accept ─► admission ─► hello (both sides prove the token) ─► roles flip ─► first Ping ─► Session
//!    ▲           │ bounded, fair between peers      │ bounded in time and bytes       │
//!    └───────────┴──────────────────────────────────┘                                 ▼
//!                         nothing here can disturb ────────────────────────────► live session
//! ```
//!
//! It knows nothing of drivers, of the sandbox's state, or of what is done over a session.

mod accept;
mod admission;
mod directory;
mod error;
mod hello;
mod options;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod tokens;

pub use directory::remove_stale;
pub use error::CallbackError;
pub use options::{CallbackOptions, TokenStore, TokenStoreError, Tokens};
pub use session::Session;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::model::Token;
use accept::Acceptor;
use directory::Directory;
use hello::Host;
use tokens::TokenBook;

/// The socket of one sandbox. Dropping it ends the session and leaves the directory, which a
/// supervisor holds on to: a restarted gateway listens in the same one. `close` removes it.
#[derive(Debug)]
pub struct Callback {
    directory: Directory,
    session: Arc<watch::Sender<Option<Session>>>,
    book: Arc<TokenBook>,
    /// Ends the task and everything that it made.
    cancel: CancellationToken,
    _guard: DropGuard,
}

impl Callback {
    /// Makes the directory, or takes it over from the gateway that ran before, and listens.
    pub async fn open(options: CallbackOptions) -> Result<Self, CallbackError> {
        let directory = Directory::open(&options.runtime_dir, &options.sandbox_id)?;
        let listener = directory.listen()?;
        let listen_error = |source| CallbackError::Listen {
            path: directory.path().to_owned(),
            source,
        };
        let listener = tokio::net::UnixListener::from_std(listener).map_err(listen_error)?;
        let book = TokenBook::new(options.sandbox_id.clone(), options.tokens, options.initial);
        let book = Arc::new(book);
        let session = Arc::new(watch::Sender::new(None));
        let cancel = options.cancel.child_token();
        let acceptor = Acceptor {
            listener,
            host: Arc::new(Host {
                sandbox_id: options.sandbox_id,
                gateway_id: options.gateway_id,
                book: book.clone(),
            }),
            session: session.clone(),
            tasks: options.tasks.clone(),
            cancel: cancel.clone(),
        };
        options.tasks.spawn(acceptor.run());
        Ok(Self {
            directory,
            session,
            book,
            _guard: cancel.clone().drop_guard(),
            cancel,
        })
    }

    /// What the driver makes reachable for the supervisor.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The live session. `None`: there is none.
    pub fn session(&self) -> watch::Receiver<Option<Session>> {
        self.session.subscribe()
    }

    /// A new boot proves itself with this token. Tokens that were valid stay so until a session
    /// confirms one: the boot before may still be there. Store it first.
    pub fn set_token(&self, token: Token) {
        self.book.add(token);
    }

    /// The sandbox is gone: ends everything and removes the directory.
    pub async fn close(self) {
        self.cancel.cancel();
        if let Err(error) = self.directory.remove() {
            let path = self.directory.path().display();
            tracing::warn!(%path, %error, "the callback directory stays");
        }
    }
}
