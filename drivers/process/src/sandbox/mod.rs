//! The words the driver and the shim exchange: the plan, the report, the control protocol, the
//! records on disk. Everything here is wire or stored form: strict, versioned, and free of logic
//! that touches the machine. Both binaries use it, so it depends on serde alone.
//!
//! ```text
//! driver ── ShimPlan + bootstrap ──► shim          (once, over the shim's standard input)
//! driver ◄───── LaunchReport ─────── shim          (once, on the same socket)
//! driver ◄── control::Request/Response ──► shim    (shim.sock, as long as it lives)
//! driver ◄── records in the state directory ─ shim (what survives both)
//! ```

pub mod control;
pub mod frame;
pub mod layout;
pub mod plan;
pub mod record;
pub mod report;
