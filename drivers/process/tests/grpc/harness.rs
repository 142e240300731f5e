//! The real driver as a process of its own, started as a gateway starts it, and a gateway's end of
//! every connection. The supervisor is the stand-in of the other tests.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cofferdam_driver_sdk::proto::compute_driver_client::ComputeDriverClient;
use cofferdam_driver_sdk::proto::*;
use cofferdam_driver_sdk::settings;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

/// Bounds every wait of a test.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) const GATEWAY: &str = "gw-test";

pub(crate) type Client = ComputeDriverClient<Channel>;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A state directory, and the socket that a gateway would own: both outlive the driver.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    cgroup: Option<String>,
    listener: std::os::unix::net::UnixListener,
    driver: Option<Child>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new()
            .prefix("cofferdam-test-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("d.sock")).unwrap();
        let cgroup = is_root().then(|| format!("/cofferdam-grpc-{}-{number}", std::process::id()));
        Self {
            dir,
            cgroup,
            listener,
            driver: None,
        }
    }

    /// Starts the driver and connects to it.
    pub(crate) async fn gateway(&mut self) -> Client {
        self.start_driver();
        self.connect(GATEWAY, json!({})).await
    }

    pub(crate) fn start_driver(&mut self) {
        // A duplicate without close-on-exec is what a child inherits.
        let inherited: OwnedFd = rustix::io::dup(&self.listener).unwrap();
        let driver = Command::new(env!("CARGO_BIN_EXE_cofferdam-driver-process"))
            .env("COFFERDAM_LISTEN_FD", inherited.as_raw_fd().to_string())
            .env("COFFERDAM_LOG", "warn")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.driver = Some(driver);
    }

    pub(crate) async fn connect(&self, gateway_id: &str, more: Value) -> Client {
        let mut client = self.shake_hands(gateway_id).await;
        client.configure(self.settings(more)).await.unwrap();
        client
    }

    pub(crate) async fn shake_hands(&self, gateway_id: &str) -> Client {
        let path = self.dir.path().join("d.sock");
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let endpoint = Endpoint::from_static("http://driver").timeout(LIMIT);
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        let mut client = Client::new(channel);
        client.handshake(handshake(gateway_id)).await.unwrap();
        client
    }

    pub(crate) fn settings(&self, more: Value) -> ConfigureRequest {
        let mut settings = json!({
            "state_dir": self.dir.path().join("state"),
            "id_claims_dir": self.dir.path().join("ids"),
        });
        let object = settings.as_object_mut().unwrap();
        object.extend(
            self.cgroup
                .iter()
                .map(|path| ("cgroup_parent".to_owned(), json!(path))),
        );
        object.extend(more.as_object().cloned().unwrap_or_default());
        ConfigureRequest {
            settings: Some(settings::from_json(&settings)),
        }
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) async fn kill_driver(&mut self) {
        let mut driver = self.driver.take().unwrap();
        driver.kill().await.unwrap();
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn end_driver(&mut self) -> std::process::ExitStatus {
        let mut driver = self.driver.take().unwrap();
        let pid = i32::try_from(driver.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        driver.wait().await.unwrap()
    }

    /// The gateway's end for one sandbox: its directory, and a listener in it.
    pub(crate) fn callback(&self, id: &str) -> Callback {
        let directory = self.dir.path().join(format!("cb-{id}"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
        let socket = directory.join("gateway.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        Callback {
            directory,
            listener,
            session: None,
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let state = self.dir.path().join("state");
        if let Some(mut driver) = self.driver.take() {
            // Its own runtime may be gone, so this does not wait for it through that.
            let pid = driver.id().map(|pid| pid.to_string());
            let _ = driver.start_kill();
            while pid.as_deref().is_some_and(alive) {
                std::thread::yield_now();
            }
        }
        let end = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                for root in [state.join("sandboxes"), state.join("probe")] {
                    for dir in cofferdam_driver_process::launch::list(&root).unwrap_or_default() {
                        let _ = cofferdam_driver_process::launch::destroy(&dir, LIMIT).await;
                    }
                }
            });
        };
        let _ = std::thread::spawn(end).join();
        let Some(cgroup) = &self.cgroup else { return };
        let parent =
            cofferdam_driver_process::cgroup::CgroupParent::detect(Some(Path::new(cgroup)));
        for dir in parent.dirs() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// The gateway's end of a sandbox's stream.
pub(crate) struct Callback {
    pub(crate) directory: PathBuf,
    listener: UnixListener,
    session: Option<BufReader<UnixStream>>,
}

impl Callback {
    /// Waits for the supervisor of a new boot.
    pub(crate) async fn session(&mut self) {
        let accepted = tokio::time::timeout(LIMIT, self.listener.accept()).await;
        let (stream, _) = accepted.expect("no supervisor has called").unwrap();
        self.session = Some(BufReader::new(stream));
    }

    /// Runs a script in the sandbox; its trimmed output.
    pub(crate) async fn run(&mut self, script: &str) -> String {
        if self.session.is_none() {
            self.session().await;
        }
        let session = self.session.as_mut().unwrap();
        let request = format!("{}\n", json!({"as": "workload", "script": script}));
        session
            .get_mut()
            .write_all(request.as_bytes())
            .await
            .unwrap();
        let mut line = String::new();
        tokio::time::timeout(LIMIT, session.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        let answer: Value = serde_json::from_str(&line).expect("the supervisor has died");
        answer["output"].as_str().unwrap().trim().to_owned()
    }
}

pub(crate) fn handshake(gateway_id: &str) -> HandshakeRequest {
    let path = stand_in();
    let bytes = std::fs::read(&path).unwrap();
    HandshakeRequest {
        contract: Some(VersionRange { min: 1, max: 1 }),
        gateway_id: gateway_id.to_owned(),
        gateway_version: "0.0.0".to_owned(),
        supervisor: Some(Supervisor {
            path: path.to_str().unwrap().to_owned(),
            sha256: Sha256::digest(&bytes).to_vec().into(),
            version: "0.0.0".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
        }),
    }
}

/// `examples/test_init.rs`, which cargo builds along with the tests.
fn stand_in() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let init = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/test_init");
    assert!(
        init.exists(),
        "{} is missing: build the examples too",
        init.display()
    );
    init
}

pub(crate) fn spec() -> SandboxSpec {
    SandboxSpec {
        image: Some(ImageSpec {
            source: Some(image_spec::Source::Host(HostImage {})),
            ..ImageSpec::default()
        }),
        uid: 1000,
        gid: 1000,
        limits: Some(ResourceLimits {
            memory_bytes: 128 << 20,
            cpu_millis: 1000,
            pids: 64,
            disk_bytes: 16 << 20,
            tmp_bytes: 8 << 20,
            required: None,
        }),
        expire_time_unix_ms: 4_000_000_000_000,
        ..SandboxSpec::default()
    }
}

pub(crate) fn create(id: &str, callback: &Callback) -> CreateSandboxRequest {
    create_with(id, callback, spec())
}

pub(crate) fn create_with(
    id: &str,
    callback: &Callback,
    spec: SandboxSpec,
) -> CreateSandboxRequest {
    CreateSandboxRequest {
        sandbox_id: id.to_owned(),
        spec: Some(spec),
        callback_directory: callback.directory.to_str().unwrap().to_owned(),
        bootstrap_token: vec![7; 32].into(),
        operation_id: "op-test".to_owned(),
    }
}

pub(crate) fn get(id: &str) -> GetSandboxRequest {
    GetSandboxRequest {
        sandbox_id: id.to_owned(),
    }
}

pub(crate) fn delete(id: &str) -> DeleteSandboxRequest {
    DeleteSandboxRequest {
        sandbox_id: id.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn stop(id: &str, grace_ms: u64) -> StopSandboxRequest {
    StopSandboxRequest {
        sandbox_id: id.to_owned(),
        grace_ms,
        ..Default::default()
    }
}

pub(crate) fn start(id: &str) -> StartSandboxRequest {
    StartSandboxRequest {
        sandbox_id: id.to_owned(),
        bootstrap_token: vec![8; 32].into(),
        ..Default::default()
    }
}

pub(crate) async fn observe(client: &mut Client, id: &str) -> Sandbox {
    client
        .get_sandbox(get(id))
        .await
        .unwrap()
        .into_inner()
        .sandbox
        .unwrap()
}

pub(crate) async fn list(client: &mut Client) -> (Vec<String>, bool) {
    let answer = client
        .list_sandboxes(ListSandboxesRequest::default())
        .await
        .unwrap();
    let answer = answer.into_inner();
    let ids = answer
        .sandboxes
        .into_iter()
        .map(|sandbox| sandbox.sandbox_id);
    (ids.collect(), answer.complete)
}

/// A zombie is dead; when the host's init takes it away is its own affair.
pub(crate) fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
