//! All drivers of this gateway.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Driver, DriverEvent, DriverSpec, SupervisorBinary, Timing};
use crate::model::DriverName;

/// What the registry needs to know.
#[derive(Debug)]
pub struct RegistryOptions {
    pub specs: Vec<DriverSpec>,
    pub gateway_id: String,
    pub supervisor: SupervisorBinary,
    /// Sockets of built-in drivers are made below it.
    pub runtime_dir: PathBuf,
    /// Full: the drivers' watches wait, nothing is dropped.
    pub events: mpsc::Sender<DriverEvent>,
    /// Ends everything: connections, tasks, and the built-in drivers' processes.
    pub cancel: CancellationToken,
    pub tasks: TaskTracker,
    pub timing: Timing,
}

/// All drivers, by name.
#[derive(Debug, Clone)]
pub struct Registry {
    drivers: Arc<[Driver]>,
}

impl Registry {
    /// Begins to reach every driver, and waits for none.
    pub fn start(options: RegistryOptions) -> Self {
        let _ = options;
        todo!()
    }

    /// The driver that the operator attached under this name.
    pub fn get(&self, name: &DriverName) -> Option<Driver> {
        self.drivers.iter().find(|d| d.name() == name).cloned()
    }

    /// All of them, in the order of the configuration.
    pub fn list(&self) -> Vec<Driver> {
        self.drivers.to_vec()
    }

    /// Waits until each driver is connected, was refused or has failed once; at most `timeout`.
    pub async fn settled(&self, timeout: Duration) {
        let _ = timeout;
    }
}
