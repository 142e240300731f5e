//! A fault driver in this process, and a gateway's side of the connection.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use cofferdam_driver_sdk::faults::script::{Fault, Rule};
use cofferdam_driver_sdk::faults::{FaultDriver, Script};
use cofferdam_driver_sdk::proto::compute_driver_client::ComputeDriverClient;
use cofferdam_driver_sdk::proto::watch_sandboxes_response::Event;
use cofferdam_driver_sdk::proto::*;
use cofferdam_driver_sdk::settings;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tower::util::BoxCloneService;

pub(crate) type Client = ComputeDriverClient<Channel>;
pub(crate) type Patient = ComputeDriverClient<
    BoxCloneService<http::Request<Body>, http::Response<Incoming>, hyper::Error>,
>;

/// No test waits longer for anything.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}

pub(crate) struct Fixture {
    pub(crate) driver: FaultDriver,
    pub(crate) socket: PathBuf,
    _directory: TempDir,
}

impl Fixture {
    pub(crate) fn start(script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("driver.sock");
        let driver = FaultDriver::start(&socket, script).unwrap();
        Self {
            driver,
            socket,
            _directory: directory,
        }
    }

    pub(crate) async fn connect(&self) -> Result<Client, tonic::transport::Error> {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let endpoint = Endpoint::from_static("http://driver");
        let channel = endpoint.connect_with_connector(connector).await?;
        Ok(Client::new(channel))
    }

    /// As `client`, but without a clock of its own: only the driver ends calls at their deadlines.
    pub(crate) async fn patient(&self) -> Patient {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.unwrap();
        tokio::spawn(connection);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let mut sender = sender.clone();
            async move { sender.send_request(request).await }
        });
        let origin = http::Uri::from_static("http://driver");
        let mut client = Patient::with_origin(BoxCloneService::new(service), origin);
        client.handshake(hello()).await.unwrap();
        client.configure(ConfigureRequest::default()).await.unwrap();
        client
    }

    /// Connected, configured, and without supervisors.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.connect().await.unwrap();
        shake_hands(&mut client).await.unwrap();
        client
    }
}

pub(crate) async fn shake_hands(client: &mut Client) -> Result<HandshakeResponse, Status> {
    let answer = client.handshake(hello()).await?.into_inner();
    let settings = settings::from_json(&json!({"run_supervisor": false}));
    let settings = Some(settings);
    client.configure(ConfigureRequest { settings }).await?;
    Ok(answer)
}

pub(crate) fn hello() -> HandshakeRequest {
    HandshakeRequest {
        contract: Some(VersionRange { min: 1, max: 1 }),
        gateway_id: "gw-test".to_owned(),
        ..HandshakeRequest::default()
    }
}

pub(crate) fn spec() -> SandboxSpec {
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

pub(crate) fn create(id: &str) -> CreateSandboxRequest {
    CreateSandboxRequest {
        sandbox_id: id.to_owned(),
        spec: Some(spec()),
        callback_directory: "/nowhere".to_owned(),
        bootstrap_token: vec![7; 32].into(),
        ..CreateSandboxRequest::default()
    }
}

pub(crate) fn get(id: &str) -> GetSandboxRequest {
    GetSandboxRequest {
        sandbox_id: id.to_owned(),
    }
}

pub(crate) fn stop(id: &str) -> StopSandboxRequest {
    StopSandboxRequest {
        sandbox_id: id.to_owned(),
        ..StopSandboxRequest::default()
    }
}

pub(crate) fn delete(id: &str) -> DeleteSandboxRequest {
    DeleteSandboxRequest {
        sandbox_id: id.to_owned(),
        ..DeleteSandboxRequest::default()
    }
}

pub(crate) fn recover(ids: &[&str]) -> RecoverSandboxesRequest {
    let item = |id: &&str| recover_sandboxes_request::Item {
        sandbox_id: (*id).to_owned(),
        ..recover_sandboxes_request::Item::default()
    };
    RecoverSandboxesRequest {
        items: ids.iter().map(item).collect(),
    }
}

/// What is there, by Get: the state, or the error's code.
pub(crate) async fn state(client: &mut Client, id: &str) -> Result<SandboxState, Code> {
    let answer = client.get_sandbox(get(id)).await;
    let answer = answer.map_err(|status| status.code())?;
    Ok(answer.into_inner().sandbox.unwrap().state())
}

/// Ids on all pages, and whether they are complete.
pub(crate) async fn list(client: &mut Client) -> (Vec<String>, bool) {
    let page = client.list_sandboxes(ListSandboxesRequest::default());
    let page = page.await.unwrap().into_inner();
    assert_eq!(page.next_page_token, "", "one page is enough");
    let ids = page.sandboxes.into_iter().map(|sandbox| sandbox.sandbox_id);
    (ids.collect(), page.complete)
}

pub(crate) async fn watch(client: &mut Client, cursor: &str) -> Streaming<WatchSandboxesResponse> {
    let request = WatchSandboxesRequest {
        cursor: cursor.to_owned(),
    };
    client.watch_sandboxes(request).await.unwrap().into_inner()
}

pub(crate) async fn next(stream: &mut Streaming<WatchSandboxesResponse>) -> WatchSandboxesResponse {
    let message = within("an event", stream.message()).await;
    message.unwrap().expect("the stream has ended")
}

/// In short: `changed sbx-1 Running 2`.
pub(crate) fn short(message: &WatchSandboxesResponse) -> String {
    let state = |kind: &str, sandbox: &Sandbox| {
        let (id, state) = (&sandbox.sandbox_id, sandbox.state());
        format!("{kind} {id} {state:?} {}", sandbox.revision)
    };
    match message.event.as_ref().unwrap() {
        Event::Snapshot(sandbox) => state("snapshot", sandbox),
        Event::Changed(sandbox) => state("changed", sandbox),
        Event::Deleted(deleted) => format!("deleted {}", deleted.sandbox_id),
        Event::Bookmark(bookmark) if bookmark.synced => "synced".to_owned(),
        Event::Bookmark(_) => "bookmark".to_owned(),
    }
}

/// The next events in short, without bookmarks.
pub(crate) async fn events(
    stream: &mut Streaming<WatchSandboxesResponse>,
    count: usize,
) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let event = short(&next(stream).await);
        if event != "bookmark" {
            seen.push(event);
        }
    }
    seen
}

/// A rule for the first call of `rpc`.
pub(crate) fn once(rpc: &str, fault: Fault) -> Script {
    Script {
        rules: vec![Rule {
            times: Some(1),
            ..Rule::always(rpc, fault)
        }],
        ..Script::default()
    }
}
