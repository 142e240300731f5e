//! Making, controlling, observing and destroying a sandbox, from the driver's side.
//!
//! ```text
//! launch  ── intent on disk, id block, cgroup leaf ──► shim ──► supervisor
//! control ── start, stop, kill, status, wait, set_expire ──► shim.sock
//! observe ◄─ records and live processes, verified by start time
//! destroy ── whatever is left of it, from any state
//! ```
//!
//! All of it holds no state, but for a shim that is kept ready: a driver that was restarted uses the
//! state directories it finds.

mod control;
mod destroy;
mod error;
mod hints;
mod identity;
mod launcher;
mod observe;
mod read;
mod request;
mod spare;

pub use control::{ControlError, ShimControl};
pub use destroy::{DestroyError, destroy};
pub use error::LaunchError;
pub use hints::HostSwitches;
pub use identity::ProcessIdentity;
pub use launcher::{Launcher, LauncherConfig, ShimHandle};
pub use observe::{Observation, Sandbox, list, observe};
pub use request::{Bootstrap, SandboxLimits, SandboxPlan};
pub use spare::SpareShim;
