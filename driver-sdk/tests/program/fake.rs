//! The fake driver with programs that are no supervisors: they end at once, or stay.

use std::path::Path;

use cofferdam_driver_sdk::proto::watch_sandboxes_response::Event;
use cofferdam_driver_sdk::proto::*;
use cofferdam_driver_sdk::settings;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_stream::StreamExt as _;

use crate::harness::{Client, Driver, LIMIT, connect, handshake};

async fn gateway(socket: &Path, supervisor: &str) -> Client {
    let mut client = connect(socket).await;
    let request = HandshakeRequest {
        supervisor: Some(Supervisor {
            path: supervisor.to_owned(),
            sha256: Sha256::digest(std::fs::read(supervisor).unwrap())
                .to_vec()
                .into(),
            ..Supervisor::default()
        }),
        ..handshake()
    };
    client.handshake(request).await.unwrap();
    client.configure(ConfigureRequest::default()).await.unwrap();
    client
}

fn create(directory: &Path) -> CreateSandboxRequest {
    CreateSandboxRequest {
        sandbox_id: "sbx-1".to_owned(),
        spec: Some(SandboxSpec {
            image: Some(ImageSpec {
                source: Some(image_spec::Source::Host(HostImage {})),
                ..ImageSpec::default()
            }),
            uid: 1000,
            gid: 1000,
            expire_time_unix_ms: 4_000_000_000_000,
            ..SandboxSpec::default()
        }),
        callback_directory: directory.to_str().unwrap().to_owned(),
        bootstrap_token: vec![7; 32].into(),
        ..CreateSandboxRequest::default()
    }
}

#[tokio::test]
async fn a_supervisor_that_ends_is_seen_with_its_code_and_its_words() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("d.sock");
    let _driver = Driver::on_socket(&socket).up().await;
    // It does not know the flag, says so, and ends.
    let mut client = gateway(&socket, "/bin/cat").await;
    let watch = client
        .watch_sandboxes(WatchSandboxesRequest::default())
        .await
        .unwrap();
    client
        .create_sandbox(create(directory.path()))
        .await
        .unwrap();
    let mut ended = watch
        .into_inner()
        .filter_map(|event| match event.unwrap().event {
            Some(Event::Changed(sandbox)) if sandbox.state() == SandboxState::Stopped => {
                Some(sandbox)
            }
            _ => None,
        });
    let sandbox = tokio::time::timeout(LIMIT, ended.next())
        .await
        .unwrap()
        .unwrap();
    let why = sandbox.termination.unwrap();
    assert_eq!(
        (why.reason(), why.exit_code),
        (TerminationReason::Exited, 1)
    );
    let request = ReadConsoleRequest {
        sandbox_id: "sbx-1".to_owned(),
        follow: true,
        ..ReadConsoleRequest::default()
    };
    let mut console = client.read_console(request).await.unwrap().into_inner();
    let text = console.next().await.unwrap().unwrap().data;
    assert!(
        String::from_utf8_lossy(&text).contains("--callback"),
        "{text:?}"
    );
    client
        .delete_sandbox(DeleteSandboxRequest {
            sandbox_id: "sbx-1".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn without_supervisors_it_only_keeps_records() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("d.sock");
    let _driver = Driver::on_socket(&socket).up().await;
    let mut client = gateway(&socket, "/bin/cat").await;
    let settings = settings::from_json(&json!({"run_supervisor": false}));
    client
        .configure(ConfigureRequest {
            settings: Some(settings),
        })
        .await
        .unwrap();
    let created = client
        .create_sandbox(create(directory.path()))
        .await
        .unwrap()
        .into_inner();
    let sandbox = created.sandbox.unwrap();
    assert_eq!(sandbox.state(), SandboxState::Running);
    assert!(
        !sandbox.weaknesses.is_empty(),
        "the fake says that it is one"
    );
    let request = StopSandboxRequest {
        sandbox_id: "sbx-1".to_owned(),
        ..Default::default()
    };
    let stopped = client
        .stop_sandbox(request)
        .await
        .unwrap()
        .into_inner()
        .sandbox
        .unwrap();
    assert_eq!(
        stopped.termination.unwrap().reason(),
        TerminationReason::StoppedByRequest
    );
    let request = StartSandboxRequest {
        sandbox_id: "sbx-1".to_owned(),
        bootstrap_token: vec![8; 32].into(),
        ..Default::default()
    };
    let started = client
        .start_sandbox(request)
        .await
        .unwrap()
        .into_inner()
        .sandbox
        .unwrap();
    assert_eq!((started.state(), started.boots), (SandboxState::Running, 2));
}
