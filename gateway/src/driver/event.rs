//! What a driver tells, in the order in which it told it.

use crate::model::{DriverName, Observation, SandboxId};

/// News of one driver. Per driver: `Connected (Observed | Deleted)* Synced (Observed | Deleted)*
/// Disconnected`, over and over.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every event is the large one"
)]
pub enum DriverEvent {
    /// Handshake, settings and fingerprint are done: calls work. Another incarnation than before
    /// means that the driver has restarted: handles must be given back by `recover`.
    Connected {
        driver: DriverName,
        incarnation: String,
    },
    /// A sandbox as the driver sees it: in the snapshot before `Synced`, or after a change.
    Observed {
        driver: DriverName,
        observation: Observation,
    },
    /// The driver says that it is gone from the platform.
    Deleted {
        driver: DriverName,
        sandbox_id: SandboxId,
        /// After that of the last observation.
        revision: u64,
    },
    /// Every sandbox that the driver watches has been observed since `Connected` (or since the
    /// driver's watch had to begin anew). A sandbox that was not among them is *not seen*, which is
    /// not *gone*: ask `Driver::list` for a complete inventory.
    Synced {
        driver: DriverName,
        incarnation: String,
    },
    /// The connection ended; the gateway is trying again.
    Disconnected { driver: DriverName, message: String },
}
