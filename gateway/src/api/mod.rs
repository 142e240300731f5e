//! The callers' API: gRPC on a Unix socket, callers known by the kernel's word.
//!
//! ```text
//!  socket ─► service (decode, authorise, delegate, encode) ─► intake ─► Sandboxes, Executions
//!                 convert.rs, status.rs: the only mappings
//! ```

mod caller;
mod convert;
mod drivers;
mod execute;
mod executions;
mod files;
mod intake;
mod sandboxes;
mod server;
mod service;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use server::{ApiServer, BindError};

use status::ApiError;

use crate::config::Config;
use crate::driver::Registry;
use crate::execution::Executions;
use crate::model::UnixMillis;
use crate::sandbox::Sandboxes;
use crate::state_dir::StateDir;
use crate::store::Store;
use intake::Intake;

/// What the API delegates to.
#[derive(Debug, Clone)]
pub(crate) struct Api(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    intake: Intake,
    store: Store,
    state_dir: StateDir,
    drivers: Registry,
    sandboxes: Sandboxes,
    executions: Executions,
    gateway_id: String,
    default_driver: String,
    cancel_grace: std::time::Duration,
    start_time: UnixMillis,
    ready: AtomicBool,
    draining: AtomicBool,
}

impl Api {
    pub(crate) fn new(
        config: &Config,
        store: Store,
        state_dir: StateDir,
        drivers: Registry,
        sandboxes: Sandboxes,
        executions: Executions,
    ) -> Self {
        Self(Arc::new(Parts {
            intake: Intake::new(config.clone(), drivers.clone()),
            gateway_id: store.gateway_id().to_owned(),
            store,
            state_dir,
            drivers,
            sandboxes,
            executions,
            default_driver: config.default_driver.to_string(),
            cancel_grace: config.executions.cancel_grace,
            start_time: UnixMillis::now(),
            ready: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }))
    }

    /// Drivers have answered and recovery is complete.
    pub(crate) fn set_ready(&self) {
        self.0.ready.store(true, Ordering::Relaxed);
    }

    /// From now on no new work is taken.
    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    fn takes_work(&self) -> Result<(), ApiError> {
        match self.0.draining.load(Ordering::Relaxed) {
            true => Err(ApiError::draining()),
            // Before a driver is asked, which may have its state in the same place.
            false => Ok(self.0.state_dir.admit()?),
        }
    }
}
