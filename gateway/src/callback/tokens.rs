//! The tokens of one sandbox: which ones prove a supervisor, and how they rotate.
//!
//! ```text
//!  accepted {T}  ─ reply under T ─► stored {T, N}, N offered ─ first call answered ─► accepted {N}
//!                                     │          ▲
//!                                     └ again ───┘  an offer that was not confirmed is made again,
//!                                                   so no interleaving of hellos locks anyone out
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam_proto::hello;

use super::{TokenStore, TokenStoreError, Tokens};
use crate::model::{SandboxId, Token};

/// The tokens, shared by all hellos of a sandbox.
pub(super) struct TokenBook {
    sandbox_id: SandboxId,
    store: Arc<dyn TokenStore>,
    state: Mutex<State>,
    /// Held while tokens are stored, so that what is stored last is what counts.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// Newest last.
    accepted: Vec<Token>,
    offer: Option<Offer>,
}

/// A next token that a supervisor may or may not have got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// What the supervisor proved itself with.
    pub(super) under: Token,
    pub(super) next: Token,
}

impl TokenBook {
    pub(super) fn new(sandbox_id: SandboxId, store: Arc<dyn TokenStore>, stored: Tokens) -> Self {
        let Tokens { current, next } = stored;
        let next = next.filter(|next| *next != current);
        let offer = next.map(|next| Offer {
            under: current.clone(),
            next,
        });
        let mut accepted = vec![current];
        accepted.extend(offer.iter().map(|offer| offer.next.clone()));
        Self {
            sandbox_id,
            store,
            state: Mutex::new(State { accepted, offer }),
            storing: tokio::sync::Mutex::default(),
        }
    }

    /// Accepts another token. Those before stay valid until a session confirms one: the boot before
    /// may still run.
    pub(super) fn add(&self, token: Token) {
        let mut state = self.state();
        // A new boot begins with this one, so what was offered to the one before counts no more
        // than any other.
        state.offer = None;
        state.accepted.retain(|known| *known != token);
        state.accepted.push(token);
        // One for the boot before, what it was offered, and this one.
        let surplus = state.accepted.len().saturating_sub(3);
        state.accepted.drain(..surplus);
    }

    /// The token under which the supervisor made `mac`, if it is accepted.
    pub(super) fn verify(
        &self,
        nonce: &[u8; hello::KEY_BYTES],
        boot_id: &[u8; hello::BOOT_ID_BYTES],
        mac: &[u8],
    ) -> Option<Token> {
        let state = self.state();
        let mut found = None;
        // All are tried, so that time tells nothing about which.
        for token in &state.accepted {
            let expected = hello::reply_mac(&token.0, nonce, boot_id, self.sandbox_id.as_str());
            if hello::same_mac(&expected, mac) {
                found = Some(token.clone());
            }
        }
        found
    }

    /// The next token for a supervisor that proved itself with `under`. It is stored before this
    /// returns. A cancel leaves at most a stored pair of which both are accepted after a restart.
    pub(super) async fn offer(&self, under: Token) -> Result<Offer, TokenStoreError> {
        let _storing = self.storing.lock().await;
        if let Some(offer) = self.state().offer.clone()
            && offer.under == under
        {
            return Ok(offer);
        }
        let before = self.state().accepted.clone();
        let next = Token::generate();
        self.store.rotate(&self.sandbox_id, &under, &next).await?;
        let offer = Offer { under, next };
        let mut state = self.state();
        // What was added in the meantime stays.
        state
            .accepted
            .retain(|known| *known == offer.under || !before.contains(known));
        state.accepted.push(offer.next.clone());
        state.offer = Some(offer.clone());
        Ok(offer)
    }

    /// The supervisor has shown that it holds the offered token: only that one counts from now on.
    pub(super) async fn confirm(&self, offer: &Offer) -> Result<(), TokenStoreError> {
        let _storing = self.storing.lock().await;
        {
            let mut state = self.state();
            if state.offer.as_ref() != Some(offer) {
                return Ok(());
            }
            state.offer = None;
            state.accepted.retain(|known| *known == offer.next);
        }
        self.store
            .rotate(&self.sandbox_id, &offer.next, &offer.next)
            .await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TokenBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenBook")
            .field("sandbox_id", &self.sandbox_id)
            .finish_non_exhaustive()
    }
}
