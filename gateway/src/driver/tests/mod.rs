//! Drivers with scripted faults behind real sockets.

mod calls;
mod fake;
mod launch;
mod reach;
mod settings;
mod watching;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::*;
use crate::model::{
    DriverName, ImageSource, ImageSpec, NetworkClass, NetworkSpec, OperationId, PullPolicy,
    ResourceLimits, SandboxId, SandboxSpec, Token, UnixMillis,
};

/// A registry and what it tells. Ends with the test.
struct Gateway {
    registry: Registry,
    events: mpsc::Receiver<DriverEvent>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    _runtime: tempfile::TempDir,
    _guard: DropGuard,
}

impl Gateway {
    fn start(timing: Timing, specs: Vec<DriverSpec>) -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let (events, receiver) = mpsc::channel(64);
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let registry = Registry::start(RegistryOptions {
            specs,
            gateway_id: "gw-test".to_owned(),
            supervisor: SupervisorBinary {
                path: PathBuf::from("/supervisor"),
                sha256: [0; 32],
                version: "1".to_owned(),
                architecture: "x86_64".to_owned(),
            },
            runtime_dir: runtime.path().to_owned(),
            events,
            cancel: cancel.clone(),
            tasks: tasks.clone(),
            timing,
        });
        Self {
            registry,
            events: receiver,
            tasks,
            _guard: cancel.clone().drop_guard(),
            cancel,
            _runtime: runtime,
        }
    }

    /// With one driver, named `d`, behind a socket.
    fn with_socket(timing: Timing, socket: &Path) -> Self {
        Self::start(timing, vec![socket_spec("d", socket)])
    }

    fn driver(&self) -> Driver {
        self.registry.list().remove(0)
    }

    async fn event(&mut self) -> DriverEvent {
        within(self.events.recv()).await.unwrap()
    }

    /// Until the driver has told everything that it knew at first.
    async fn synced(&mut self) -> String {
        loop {
            if let DriverEvent::Synced { incarnation, .. } = self.event().await {
                return incarnation;
            }
        }
    }
}

fn socket_spec(name: &str, socket: &Path) -> DriverSpec {
    DriverSpec {
        name: DriverName::parse(name).unwrap(),
        source: DriverSource::Socket {
            path: socket.to_owned(),
        },
        settings: serde_json::Map::new(),
    }
}

/// Tries again at once, and waits long for answers that are to come.
fn eager() -> Timing {
    Timing {
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        refused_retry: Duration::from_millis(20),
        ..Timing::default()
    }
}

/// Gives up soon on answers that are not to come.
fn impatient() -> Timing {
    let soon = Duration::from_millis(300);
    Timing {
        handshake: soon,
        configure: soon,
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: soon,
        watch_silence: soon,
        reconnect_wait: soon,
        unavailable_retry: soon,
        calls: CallDeadlines {
            create: soon,
            start: soon,
            stop: soon,
            delete: soon,
            recover: soon,
            list: soon,
            observe: soon,
            follow: soon,
        },
        ..eager()
    }
}

/// Fails instead of hanging.
async fn within<T>(future: impl Future<Output = T>) -> T {
    let result = timeout(Duration::from_secs(30), future).await;
    result.expect("nothing happened for 30 s")
}

/// The view once it is as wanted.
async fn view(driver: &Driver, wanted: impl Fn(&DriverView) -> bool) -> DriverView {
    let mut changes = driver.changes();
    let waiting = changes.wait_for(|view| wanted(view));
    match timeout(Duration::from_secs(30), waiting).await {
        Ok(view) => DriverView::clone(&view.unwrap()),
        Err(_) => panic!("the view stays {:#?}", driver.view()),
    }
}

async fn connected(driver: &Driver) -> DriverView {
    view(driver, |view| view.state == DriverState::Connected).await
}

async fn refused(driver: &Driver) -> DriverView {
    view(driver, |view| view.state == DriverState::Refused).await
}

fn sandbox_id(id: &str) -> SandboxId {
    SandboxId::parse(id).unwrap()
}

fn create(id: &str) -> CreateCall {
    CreateCall {
        sandbox_id: sandbox_id(id),
        spec: spec(),
        callback_directory: PathBuf::from("/run/callback"),
        token: Token([1; 32]),
        operation: OperationId::generate(),
    }
}

fn spec() -> SandboxSpec {
    SandboxSpec {
        image: ImageSpec {
            source: ImageSource::Host,
            pull: PullPolicy::Missing,
            credentials: None,
            platform: String::new(),
        },
        uid: 1000,
        gid: 1000,
        limits: ResourceLimits::default(),
        network: NetworkSpec {
            class: NetworkClass::None,
            allow: Vec::new(),
        },
        mounts: Vec::new(),
        labels: Default::default(),
        expire_time: UnixMillis::now(),
        gpus: 0,
        driver_config: Default::default(),
        isolation_min: None,
        root_writable: false,
        workspace: String::new(),
        hostname: String::new(),
    }
}
