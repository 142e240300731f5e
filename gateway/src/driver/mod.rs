//! Everything that the gateway knows about compute drivers: finding, starting and trusting their
//! processes, and calling them.
//!
//! ```text
//!  Registry ──one task per driver──► connect ► handshake ► configure ► fingerprint ► CONNECTED
//!     │            (built-in: plus one that launches)              │          │
//!     ▼                                                            ▼          ▼
//!  Driver (handle): view(), calls with deadlines and retries   DriverView  DriverEvent → owner
//! ```
//!
//! From the handshake on there is one code path, whoever started the driver. Nothing in here knows
//! what a driver does, nothing stores anything, and nothing of one driver can delay another.

mod call;
mod capabilities;
mod connect;
pub mod convert;
mod describe;
mod environment;
mod error;
mod event;
mod fingerprint;
mod handle;
mod handshake;
mod inventory;
mod launch;
mod log;
mod notices;
mod pace;
mod predecessor;
mod process;
mod registry;
mod schema;
mod shared;
mod source;
mod status;
mod supervisor_binary;
mod task;
#[cfg(test)]
mod tests;
mod timing;
mod trouble;
mod view;
mod watch;

pub use capabilities::{Capabilities, Execution, ImageSources};
pub use describe::{DescribeError, check_settings};
pub use error::{CallError, CallErrorKind, Violation};
pub use event::DriverEvent;
pub use handle::{CreateCall, Driver, StartCall};
pub use inventory::{Inventory, RecoverItem, RecoverOutcome, Recovered};
pub use notices::{Notice, Subject};
pub use registry::{Registry, RegistryOptions};
pub use schema::schema_violations;
pub use source::{DriverSource, DriverSpec};
pub use supervisor_binary::{SupervisorBinary, SupervisorBinaryError};
pub use timing::{CallDeadlines, Timing};
pub use view::{Check, CheckResult, DriverState, DriverView, Fingerprint, Health, Resources};
