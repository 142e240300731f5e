//! A driver that does as it is told, and a gateway's side of the connection.
#![allow(
    unreachable_pub,
    missing_debug_implementations,
    reason = "nobody but these tests uses it"
)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_driver_sdk::capabilities::{fingerprint, passed, supervised};
use cofferdam_driver_sdk::proto::compute_driver_client::ComputeDriverClient;
use cofferdam_driver_sdk::proto::*;
use cofferdam_driver_sdk::run::{Listeners, Peers, serve};
use cofferdam_driver_sdk::server::Server;
use cofferdam_driver_sdk::supervisor::Token;
use cofferdam_driver_sdk::{
    Call, ComputeDriver, Context, CreateRequest, Created, DriverError, DriverStream, Inventory,
    RecoverItem, Recovered,
};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::util::BoxCloneService;

pub const GATEWAY: &str = "gw-test";

/// Sandboxes are entries of a map. Labels of a spec say how its operations behave: `create=hang`,
/// `create=panic`, `stop=hang`.
#[derive(Debug, Clone)]
pub struct Scripted {
    pub context: Context,
    pub sandboxes: Arc<Mutex<HashMap<(String, String), Known>>>,
    /// How many operations were dropped before they ended.
    pub dropped: Arc<AtomicUsize>,
    /// Told when an operation begins to hang.
    pub hangs: Arc<Notify>,
    pub deletes: Arc<AtomicUsize>,
}

#[derive(Debug, Clone)]
pub struct Known {
    pub sandbox: Sandbox,
    pub digest: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub greeting: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            greeting: "hello".to_owned(),
        }
    }
}

impl Scripted {
    pub fn new(context: Context) -> Self {
        Self {
            context,
            sandboxes: Arc::default(),
            dropped: Arc::default(),
            hangs: Arc::default(),
            deletes: Arc::default(),
        }
    }

    async fn behave(&self, labels: &BTreeMap<String, String>, operation: &str) {
        match labels.get(operation).map(String::as_str) {
            Some("hang") => {
                let _counted = CountDrop(Arc::clone(&self.dropped));
                self.hangs.notify_one();
                std::future::pending::<()>().await;
            }
            Some("panic") => panic!("told to"),
            _ => {}
        }
    }

    fn known(&self, call: &Call, id: &str) -> Result<Known, DriverError> {
        let sandboxes = self.sandboxes.lock().unwrap();
        let known = sandboxes.get(&(call.gateway_id().to_owned(), id.to_owned()));
        known
            .cloned()
            .ok_or_else(|| DriverError::sandbox_not_found(id))
    }
}

struct CountDrop(Arc<AtomicUsize>);
impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl ComputeDriver for Scripted {
    const NAME: &'static str = "scripted";
    const VERSION: &'static str = "1.2.3";
    type Settings = Settings;

    fn description(&self) -> String {
        "does as it is told".to_owned()
    }

    fn settings_schema() -> &'static str {
        r#"{"type":"object","additionalProperties":false,"properties":{"greeting":{"type":"string"},"count":{"type":"integer"}}}"#
    }

    fn driver_config_schema() -> &'static str {
        r#"{"type":"object","additionalProperties":false,"properties":{"colour":{"enum":["red","green"]}}}"#
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            images: Some(ImageSources {
                host: true,
                ..ImageSources::default()
            }),
            stop_start: true,
            console: true,
            stats: true,
            ..supervised(Isolation::Container)
        }
    }

    async fn configure(&self, settings: Settings) -> Result<(), DriverError> {
        if settings.greeting == "wrong" {
            return Err(DriverError::invalid_field("greeting", "is wrong"));
        }
        Ok(())
    }

    async fn fingerprint(&self) -> FingerprintResponse {
        let sandboxes = self.sandboxes.lock().unwrap().len() as u64;
        let used = Resources {
            sandboxes: Some(sandboxes),
            ..Resources::default()
        };
        FingerprintResponse {
            used: Some(used),
            ..fingerprint(vec![passed("map", "is there")])
        }
    }

    async fn create(&self, call: &Call, request: CreateRequest) -> Result<Created, DriverError> {
        let key = (call.gateway_id().to_owned(), request.sandbox_id.clone());
        let known = self.sandboxes.lock().unwrap().get(&key).cloned();
        let sandbox = if let Some(known) = known {
            request.digest.check(&known.digest, &request.sandbox_id)?;
            known.sandbox
        } else {
            self.behave(&request.spec.labels, "create").await;
            let sandbox = Sandbox {
                sandbox_id: request.sandbox_id.clone(),
                state: SandboxState::Running.into(),
                boots: 1,
                ..Sandbox::default()
            };
            let known = Known {
                sandbox: sandbox.clone(),
                digest: request.digest.to_hex(),
                labels: request.spec.labels,
            };
            self.sandboxes.lock().unwrap().insert(key, known);
            sandbox
        };
        let handle = Handle {
            version: 1,
            data: Bytes::from_static(b"h"),
        };
        Ok(Created { handle, sandbox })
    }

    async fn recover(&self, call: &Call, item: RecoverItem) -> Recovered {
        if item.handle.is_some_and(|handle| handle.version > 1) {
            return Recovered::Unknown {
                message: "newer".to_owned(),
            };
        }
        match self.known(call, &item.sandbox_id) {
            Ok(known) => Recovered::Found {
                sandbox: known.sandbox,
                handle: None,
            },
            Err(error) => Recovered::Gone {
                termination: None,
                message: error.to_string(),
            },
        }
    }

    async fn start(&self, call: &Call, id: &str, _token: Token) -> Result<Sandbox, DriverError> {
        Ok(self.known(call, id)?.sandbox)
    }

    async fn stop(&self, call: &Call, id: &str, _grace: Duration) -> Result<Sandbox, DriverError> {
        let known = self.known(call, id)?;
        self.behave(&known.labels, "stop").await;
        Ok(Sandbox {
            state: SandboxState::Stopped.into(),
            ..known.sandbox
        })
    }

    async fn delete(&self, call: &Call, id: &str) -> Result<(), DriverError> {
        self.deletes.fetch_add(1, Ordering::SeqCst);
        let key = (call.gateway_id().to_owned(), id.to_owned());
        self.sandboxes.lock().unwrap().remove(&key);
        Ok(())
    }

    async fn get(&self, call: &Call, id: &str) -> Result<Sandbox, DriverError> {
        Ok(self.known(call, id)?.sandbox)
    }

    async fn list(&self, call: &Call) -> Result<Inventory, DriverError> {
        let sandboxes = self.sandboxes.lock().unwrap();
        let ours = sandboxes
            .iter()
            .filter(|((owner, _), _)| owner == call.gateway_id());
        Ok(Inventory {
            sandboxes: ours.map(|(_, known)| known.sandbox.clone()).collect(),
            complete: true,
        })
    }

    async fn read_console(
        &self,
        _call: &Call,
        request: ReadConsoleRequest,
    ) -> Result<DriverStream<Bytes>, DriverError> {
        if request.follow {
            return Ok(Box::pin(tokio_stream::pending()));
        }
        if request.tail_bytes == 13 {
            return Ok(Box::pin(async_stream::stream! {
                yield Ok(Bytes::from_static(b"first"));
                panic!("in the middle");
            }));
        }
        Ok(Box::pin(tokio_stream::once(Ok(Bytes::from_static(
            b"console",
        )))))
    }

    async fn stats(&self, call: &Call, id: &str) -> Result<SandboxStatsResponse, DriverError> {
        self.known(call, id)?;
        Ok(SandboxStatsResponse {
            pids: Some(1),
            ..SandboxStatsResponse::default()
        })
    }
}

/// A served driver.
pub struct Rig {
    pub directory: tempfile::TempDir,
    pub driver: Scripted,
    pub stop: CancellationToken,
    pub force: CancellationToken,
    pub serving: JoinHandle<()>,
}

pub type Client = ComputeDriverClient<Channel>;

impl Rig {
    pub fn new() -> Self {
        Self::draining_for(Duration::from_secs(5))
    }

    pub fn draining_for(drain_max: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listeners = Listeners::bind(&directory.path().join("d.sock"), 0o600).unwrap();
        let context = Context::new();
        let driver = Scripted::new(context.clone());
        let server = Server::new(driver.clone(), context).unwrap();
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn(serve(
            server,
            listeners,
            Peers::new(&[], false),
            stop.clone().cancelled_owned(),
            drain_max,
            force.clone().cancelled_owned(),
        ));
        Self {
            directory,
            driver,
            stop,
            force,
            serving,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("d.sock")
    }

    pub async fn channel(&self) -> Channel {
        connect(self.socket()).await
    }

    /// Connected, nothing said yet.
    pub async fn stranger(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// Connected, handshake done, configured.
    pub async fn gateway(&self) -> Client {
        self.gateway_named(GATEWAY).await
    }

    pub async fn gateway_named(&self, gateway_id: &str) -> Client {
        let mut client = self.stranger().await;
        client.handshake(handshake(gateway_id, 1, 1)).await.unwrap();
        client.configure(ConfigureRequest::default()).await.unwrap();
        client
    }
}

/// A client without a clock: tonic's own channel would end a call at its deadline before the server
/// says that it has.
pub type Patient = ComputeDriverClient<
    BoxCloneService<http::Request<Body>, http::Response<Incoming>, hyper::Error>,
>;

impl Rig {
    /// Connected, handshake done, configured; waits for the server's word on deadlines.
    pub async fn patient_gateway(&self) -> Patient {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let mut sender = sender.clone();
            async move { sender.send_request(request).await }
        });
        let service = BoxCloneService::new(service);
        let origin = http::Uri::from_static("http://driver");
        let mut client = ComputeDriverClient::with_origin(service, origin);
        client.handshake(handshake(GATEWAY, 1, 1)).await.unwrap();
        client.configure(ConfigureRequest::default()).await.unwrap();
        client
    }
}

pub async fn connect(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Endpoint::from_static("http://driver")
        .connect_with_connector(connector)
        .await
        .unwrap()
}

pub fn handshake(gateway_id: &str, min: u32, max: u32) -> HandshakeRequest {
    HandshakeRequest {
        contract: Some(VersionRange { min, max }),
        gateway_id: gateway_id.to_owned(),
        gateway_version: "0.9.0".to_owned(),
        supervisor: None,
    }
}

pub fn spec() -> SandboxSpec {
    SandboxSpec {
        image: Some(ImageSpec {
            source: Some(image_spec::Source::Host(HostImage {})),
            ..ImageSpec::default()
        }),
        uid: 1000,
        gid: 1000,
        expire_time_unix_ms: 4_000_000_000_000,
        ..SandboxSpec::default()
    }
}

pub fn create(id: &str) -> CreateSandboxRequest {
    CreateSandboxRequest {
        sandbox_id: id.to_owned(),
        spec: Some(spec()),
        callback_directory: "/run/nowhere".to_owned(),
        bootstrap_token: Bytes::from_static(&[7; 32]),
        operation_id: "op-1".to_owned(),
    }
}

pub fn create_with(id: &str, label: &str, value: &str) -> CreateSandboxRequest {
    let mut request = create(id);
    let labels = &mut request.spec.as_mut().unwrap().labels;
    labels.insert(label.to_owned(), value.to_owned());
    request
}

pub fn get(id: &str) -> GetSandboxRequest {
    GetSandboxRequest {
        sandbox_id: id.to_owned(),
    }
}

pub fn delete(id: &str) -> DeleteSandboxRequest {
    DeleteSandboxRequest {
        sandbox_id: id.to_owned(),
        ..DeleteSandboxRequest::default()
    }
}

pub fn stop(id: &str) -> StopSandboxRequest {
    StopSandboxRequest {
        sandbox_id: id.to_owned(),
        ..StopSandboxRequest::default()
    }
}
