//! The process driver: sandboxes made of Linux namespaces, with nothing to install.
//!
//! | module | owns |
//! |---|---|
//! | [`sandbox`] | what driver and shim say to each other, and what is on disk |
//! | [`shim`] | the program between driver and sandbox: namespaces, root, filters, lifecycle |
//! | [`launch`] | making, controlling, observing and destroying a sandbox from the driver |
//! | [`cgroup`] | limits and accounting, on either version |
//! | [`ids`] | the host ids that sandboxes run as |
//! | [`probe`] | what this host can do, and how to fix what it cannot |
//! | [`config`] | settings of the driver and of a sandbox, with their schemas |
//! | [`driver`] | the contract: what a gateway asks, answered with all of the above |
//!
//! Without the feature `driver` there are only `sandbox` and `shim`: what the shim's program is
//! made of, so that it stays small and starts fast.

#[cfg(feature = "driver")]
pub mod cgroup;
#[cfg(feature = "driver")]
pub mod config;
#[cfg(feature = "driver")]
mod console;
#[cfg(feature = "driver")]
pub mod driver;
#[cfg(feature = "driver")]
mod error;
#[cfg(feature = "driver")]
mod fingerprint;
#[cfg(feature = "driver")]
pub mod ids;
#[cfg(feature = "driver")]
pub mod launch;
#[cfg(feature = "driver")]
mod plan;
#[cfg(feature = "driver")]
mod platform;
#[cfg(feature = "driver")]
pub mod probe;
#[cfg(feature = "driver")]
mod recover;
pub mod sandbox;
pub mod shim;
#[cfg(feature = "driver")]
mod store;
#[cfg(feature = "driver")]
mod tracked;
#[cfg(feature = "driver")]
mod watch;
