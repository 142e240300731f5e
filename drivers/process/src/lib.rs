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

pub mod cgroup;
pub mod ids;
pub mod launch;
pub mod probe;
pub mod sandbox;
pub mod shim;
