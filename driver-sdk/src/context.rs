//! What a driver is told: once about its process ([`Context`]), and with each call ([`Call`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::proto::Supervisor;
use crate::watch::Observations;

/// Identity of one run of a driver process. Cursors and page tokens belong to it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Incarnation(Arc<str>);

impl Incarnation {
    /// A new one: 128 random bits in hexadecimal digits.
    ///
    /// # Panics
    /// When the kernel gives no random bytes, which it does on every Linux that can run this.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
        Self(hex::encode(bytes).into())
    }

    /// As on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({})", self.0)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a driver has from its process: handed to its constructor, cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// This run of the process.
    pub incarnation: Incarnation,
    /// Where the driver tells what it sees.
    pub observations: Observations,
    /// Parent of everything that the driver spawns. The process waits for it at the end.
    pub tasks: TaskTracker,
    /// Cancelled when the process is to end: background tasks return then. Sandboxes stay.
    pub shutdown: CancellationToken,
    /// Notify it when the answer of `fingerprint` has changed, so that the gateway need not wait
    /// for the next regular look.
    pub fingerprint_changed: Arc<Notify>,
}

impl Context {
    /// A context of a new incarnation, as [`run()`](crate::run()) makes it.
    #[must_use]
    pub fn new() -> Self {
        let incarnation = Incarnation::random();
        Self {
            observations: Observations::new(incarnation.clone()),
            incarnation,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            fingerprint_changed: Arc::new(Notify::new()),
        }
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// Who has shaken hands on a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayIdentity {
    /// Stable identity of the gateway's installation. A driver shows and touches only this
    /// gateway's sandboxes.
    pub id: String,
    /// Semantic version, for logs.
    pub version: String,
    /// The supervisor that this gateway wants in its sandboxes.
    pub supervisor: Option<Supervisor>,
    /// The revision of the contract that both sides speak.
    pub contract: u32,
}

/// One call of a gateway.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who calls.
    pub gateway: Arc<GatewayIdentity>,
    /// Names the operation in both logs. Empty for observations.
    pub operation_id: String,
    /// When the answer is of no use any more. The server drops the operation's future then; a
    /// driver that hands work to threads bounds that work with it.
    pub deadline: Option<Instant>,
}

impl Call {
    /// The identity that sandboxes are kept apart by.
    #[must_use]
    pub fn gateway_id(&self) -> &str {
        &self.gateway.id
    }

    /// How long this call may still take, at most `at_most`.
    #[must_use]
    pub fn remaining(&self, at_most: Duration) -> Duration {
        self.deadline.map_or(at_most, |deadline| {
            at_most.min(deadline.saturating_duration_since(Instant::now()))
        })
    }
}
