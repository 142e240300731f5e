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

mod error;
mod options;
mod session;

pub use error::CallbackError;
pub use options::{CallbackOptions, TokenStore, TokenStoreError, Tokens};
pub use session::Session;

use std::path::Path;

use tokio::sync::watch;

use crate::model::Token;

/// The socket of one sandbox. Dropping it ends the session and leaves the directory, which a
/// supervisor holds on to: a restarted gateway listens in the same one. `close` removes it.
#[derive(Debug)]
pub struct Callback {}

impl Callback {
    /// Makes the directory, or takes it over from the gateway that ran before, and listens.
    pub async fn open(options: CallbackOptions) -> Result<Self, CallbackError> {
        let _ = options;
        todo!()
    }

    /// What the driver makes reachable for the supervisor.
    pub fn directory(&self) -> &Path {
        todo!()
    }

    /// The live session. `None`: there is none.
    pub fn session(&self) -> watch::Receiver<Option<Session>> {
        todo!()
    }

    /// A new boot proves itself with this token. Tokens that were valid stay so until a session
    /// confirms one: the boot before may still be there. Store it first:
    /// `TokenStore::rotate(previous, token)`.
    pub fn set_token(&self, token: Token) {
        let _ = token;
        todo!()
    }

    /// The sandbox is gone: ends everything and removes the directory.
    pub async fn close(self) {
        todo!()
    }
}
