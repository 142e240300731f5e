//! Starts `examples/demo_driver` and others, which cargo builds along with the tests.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cofferdam_driver_sdk::proto::compute_driver_client::ComputeDriverClient;
use cofferdam_driver_sdk::proto::*;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) type Client = ComputeDriverClient<Channel>;

pub(crate) fn program() -> PathBuf {
    example("demo_driver")
}

pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let program = profile.join("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing: build the examples too",
        program.display()
    );
    program
}

/// A driver that runs. Killed when it is dropped.
pub(crate) struct Driver {
    pub(crate) child: Child,
    log: BufReader<tokio::process::ChildStderr>,
}

impl Driver {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    pub(crate) fn on_socket(path: &Path) -> Self {
        let mut command = Command::new(program());
        command.arg("--socket").arg(path).stdin(Stdio::null());
        Self::start(command)
    }

    /// Waits for this in its log.
    pub(crate) async fn says(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            timeout(LIMIT, self.log.read_line(&mut line))
                .await
                .expect(what)
                .unwrap();
            assert!(!line.is_empty(), "it ended before it said {what:?}");
            if line.contains(what) {
                return line;
            }
        }
    }

    pub(crate) async fn up(mut self) -> Self {
        self.says("the driver is up").await;
        self
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Its exit code and the rest of its log.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String) {
        let status = timeout(LIMIT, self.child.wait())
            .await
            .expect("it does not end")
            .unwrap();
        let mut log = String::new();
        self.log.read_to_string(&mut log).await.unwrap();
        (status.code(), log)
    }
}

pub(crate) async fn connect(socket: &Path) -> Client {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://driver");
    Client::new(endpoint.connect_with_connector(connector).await.unwrap())
}

pub(crate) fn handshake() -> HandshakeRequest {
    HandshakeRequest {
        contract: Some(VersionRange { min: 1, max: 1 }),
        gateway_id: "gw-test".to_owned(),
        ..HandshakeRequest::default()
    }
}
