//! Everything a Cofferdam compute driver needs, except the platform.
//!
//! A driver teaches the gateway one platform: it makes and unmakes sandboxes there and gives the
//! gateway one byte stream into each. It is a process of its own that serves the contract
//! `cofferdam.compute.v1` over a Unix domain socket. This crate is that process without the
//! platform: implement [`ComputeDriver`], and let [`run()`] do the rest.
//!
//! ```text
//!             run          sockets, peers, signals, health, reflection, draining
//!              │
//!   gateway ─► server      handshake first, bounds, one operation per sandbox, deadlines, panics
//!              │     ╲
//!              │      watch       ordered log of observations: snapshot, bookmark, changes
//!              ▼     ╱
//!        ComputeDriver     yours: the platform
//!              │
//!              ├─ spec         what is wrong with a spec, all of it
//!              ├─ handle       versioned records that the gateway keeps for you
//!              ├─ supervisor   the supervisor binary, verified; its bootstrap
//!              └─ relay        bytes between a sandbox and its callback socket
//! ```
//!
//! A driver author writes a platform and nothing of the above; whoever writes a driver in another
//! language needs the proto file alone. The conformance suite tells both whether they are right:
//! `cofferdam driver conformance --socket PATH`.
//!
//! `cargo xtask new-driver NAME DIR`, in a clone of Cofferdam, writes a driver that already works and
//! marks what is to be replaced; `docs/writing-a-driver.md` goes from there to one for your platform.
//!
//! # A driver in a few lines
//!
//! ```no_run
//! # #[cfg(feature = "fake")] mod my {
//! use cofferdam_driver_sdk::fake::FakeDriver as MyDriver;
//!
//! fn main() -> std::process::ExitCode {
//!     cofferdam_driver_sdk::run(MyDriver::new)
//! }
//! # }
//! ```
#![warn(missing_docs)]

pub mod capabilities;
mod context;
pub mod driver;
pub mod error;
#[cfg(feature = "fake")]
pub mod fake;
#[cfg(feature = "fake")]
pub mod faults;
pub mod handle;
pub mod relay;
pub mod run;
pub mod server;
pub mod settings;
pub mod spec;
pub mod supervisor;
pub mod watch;

/// The contract's messages, as generated from `compute_driver.proto`, which documents them.
pub use cofferdam_proto::compute::v1 as proto;

pub use context::{Call, Context, GatewayIdentity, Incarnation};
pub use driver::{
    ComputeDriver, CreateRequest, Created, DriverStream, Inventory, RecoverItem, Recovered,
};
pub use error::DriverError;
pub use run::run;
pub use watch::Observations;
