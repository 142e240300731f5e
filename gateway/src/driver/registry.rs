//! All drivers of this gateway.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::compute::v1 as wire;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handshake::CONTRACT;
use super::launch::Launcher;
use super::shared::Shared;
use super::task::Task;
use super::{Driver, DriverEvent, DriverSource, DriverSpec, DriverView, SupervisorBinary, Timing};
use crate::model::DriverName;

/// What the registry needs to know.
#[derive(Debug)]
pub struct RegistryOptions {
    /// Names are unique: of two with one name the first counts.
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
        let mut drivers: Vec<Driver> = Vec::new();
        for spec in &options.specs {
            if drivers.iter().any(|driver| *driver.name() == spec.name) {
                tracing::error!(driver.name = %spec.name, "a second driver of this name: ignored");
                continue;
            }
            drivers.push(start(spec.clone(), &options));
        }
        Self {
            drivers: drivers.into(),
        }
    }

    /// The driver that the operator attached under this name.
    pub fn get(&self, name: &DriverName) -> Option<Driver> {
        self.drivers
            .iter()
            .find(|driver| driver.name() == name)
            .cloned()
    }

    /// All of them, in the order of the configuration.
    pub fn list(&self) -> Vec<Driver> {
        self.drivers.to_vec()
    }

    /// Waits until each driver is connected, was refused or has failed once; at most `timeout`.
    pub async fn settled(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        for driver in self.drivers.iter() {
            let mut changes = driver.changes();
            let settled = changes.wait_for(|view| view.is_settled());
            if timeout_at(end, settled).await.is_err() {
                return;
            }
        }
    }
}

fn start(spec: DriverSpec, options: &RegistryOptions) -> Driver {
    let (socket, program) = match spec.source {
        DriverSource::Socket { path } => (path, None),
        DriverSource::BuiltIn { program } => {
            let directory = options.runtime_dir.join("drivers");
            (directory.join(format!("{}.sock", spec.name)), Some(program))
        }
    };
    let view = DriverView::new(spec.name, socket.clone(), program.clone());
    let shared = Arc::new(Shared::new(view, options.timing.clone()));
    let process = program.map(|program| {
        let cancel = options.cancel.clone();
        let (launcher, process) = Launcher::new(shared.clone(), program, socket.clone(), cancel);
        options.tasks.spawn(launcher.run());
        process
    });
    let task = Task {
        shared: shared.clone(),
        socket,
        settings: spec.settings,
        hello: hello(options),
        events: options.events.clone(),
        process,
        cancel: options.cancel.clone(),
        tasks: options.tasks.clone(),
        connected: None,
    };
    options.tasks.spawn(task.run());
    Driver { shared }
}

/// Who this gateway is, and what it wants in sandboxes.
fn hello(options: &RegistryOptions) -> wire::HandshakeRequest {
    let supervisor = &options.supervisor;
    wire::HandshakeRequest {
        contract: Some(CONTRACT),
        gateway_id: options.gateway_id.clone(),
        gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
        supervisor: Some(wire::Supervisor {
            path: supervisor.path.to_string_lossy().into_owned(),
            sha256: supervisor.sha256.to_vec().into(),
            version: supervisor.version.clone(),
            architecture: supervisor.architecture.clone(),
        }),
    }
}
