//! What is remembered for a connection: who is on the other side.

use std::sync::{Arc, PoisonError, RwLock};

use crate::context::GatewayIdentity;
use crate::error::DriverError;

/// One connection of a gateway, put into the extensions of each of its requests.
#[derive(Debug, Default)]
pub struct Connection {
    gateway: RwLock<Option<Arc<GatewayIdentity>>>,
}

impl Connection {
    /// A connection on which nobody has said anything yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Whether somebody has shaken hands here.
    #[cfg(feature = "fake")]
    pub(crate) fn is_known(&self) -> bool {
        self.gateway().is_ok()
    }

    pub(super) fn shake_hands(&self, gateway: GatewayIdentity) {
        let mut known = self.gateway.write().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::new(gateway));
    }

    /// Who has shaken hands here.
    pub(super) fn gateway(&self) -> Result<Arc<GatewayIdentity>, DriverError> {
        let known = self.gateway.read().unwrap_or_else(PoisonError::into_inner);
        known.clone().ok_or_else(|| {
            DriverError::precondition(
                "HANDSHAKE",
                "connection",
                "Handshake comes first on every connection",
                "",
            )
        })
    }
}
