//! What a run is told.

use std::ffi::OsString;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::{Config, Tier};

/// What a run is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The driver's socket.
    pub socket: PathBuf,
    /// The supervisor that is handed to the driver.
    pub supervisor: PathBuf,
    /// What this driver needs to be told.
    pub config: Config,
    /// Only cases of these tiers; none: of all.
    pub tiers: Vec<Tier>,
    /// Only these cases, or groups of them (`core.create`); none: all.
    pub cases: Vec<String>,
    /// Starts the driver, which then is ended and started again by the cases that need it.
    pub start_command: Vec<OsString>,
    /// Measure latencies after the cases.
    pub bench: bool,
    /// Ends the run early: what was made is removed, and nothing is said about the driver.
    pub interrupt: CancellationToken,
}
