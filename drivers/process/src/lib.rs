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

pub mod cgroup;
pub mod config;
mod console;
pub mod driver;
mod error;
mod fingerprint;
pub mod ids;
pub mod launch;
mod plan;
mod platform;
pub mod probe;
mod recover;
pub mod sandbox;
pub mod shim;
mod store;
mod tracked;
mod watch;
