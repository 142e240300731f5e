//! Transfers that are cut halfway: a part is never taken for the whole.

use bytes::Bytes;
use cofferdam_proto::gateway::v1::{
    ArchiveEnd, SandboxRequest, StatFileRequest, WriteArchiveOpen, WriteArchiveRequest,
    WriteFileOpen, WriteFileRequest, write_archive_request, write_file_request,
};
use cofferdam_tests::client::{self, Client};
use cofferdam_tests::{TestGateway, wait};
use rustix::process::Signal;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

async fn is_there(caller: &mut Client, sandbox: &str, path: &str) -> bool {
    let wanted = StatFileRequest {
        sandbox: sandbox.to_owned(),
        path: path.to_owned(),
        follow: false,
    };
    match caller.stat_file(client::request(wanted)).await {
        Ok(_) => true,
        Err(status) if status.code() == Code::NotFound => false,
        Err(status) => panic!("{status}"),
    }
}

/// A tar of nothing, whole by itself.
fn empty_tar() -> Bytes {
    Bytes::from(vec![0; 1024])
}

async fn unpack(caller: &mut Client, sandbox: &str, end: Option<ArchiveEnd>) -> Result<(), Status> {
    use write_archive_request::Part;
    let open = Part::Open(WriteArchiveOpen {
        sandbox: sandbox.to_owned(),
        path: "into".to_owned(),
    });
    let mut parts = vec![open, Part::Data(empty_tar())];
    parts.extend(end.map(Part::End));
    let parts = parts
        .into_iter()
        .map(|part| WriteArchiveRequest { part: Some(part) });
    let parts = tokio_stream::iter(parts.collect::<Vec<_>>());
    caller.write_archive(parts).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_end_is_refused() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let sandbox = client::create(&mut caller, SandboxRequest::default()).await;

    let refused = unpack(&mut caller, &sandbox, None).await;
    let refused = refused.expect_err("no end");
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert_eq!(reason(&refused), "DATA_LOSS");
    let end = |size_bytes| ArchiveEnd {
        sha256: Bytes::new(),
        size_bytes,
    };
    let refused = unpack(&mut caller, &sandbox, Some(end(1025))).await;
    assert_eq!(refused.expect_err("less came").code(), Code::DataLoss);
    unpack(&mut caller, &sandbox, Some(end(1024)))
        .await
        .expect("unpacked");

    use write_file_request::Part;
    let open = Part::Open(WriteFileOpen {
        sandbox: sandbox.clone(),
        path: "file".to_owned(),
        ..WriteFileOpen::default()
    });
    let parts = [open, Part::Data(Bytes::from_static(b"a part"))]
        .map(|part| WriteFileRequest { part: Some(part) });
    let refused = caller.write_file(tokio_stream::iter(parts)).await;
    refused.expect_err("no end");
    assert!(!is_there(&mut caller, &sandbox, "file").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_sender_is_killed_leaves_nothing() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let sandbox = client::create(&mut caller, SandboxRequest::default()).await;
    let listed = || gateway.ok(["exec", &sandbox, "ls", "-A"]);
    let target = format!("{sandbox}:file");
    let mut upload = gateway.cli(["cp", "-", &target]).spawn();
    // More than one message, so that some of it has arrived.
    upload.type_in(&"x".repeat(1 << 20));
    wait::until_true("it is being written", || !listed().is_empty());
    upload.signal(Signal::KILL);
    wait::until_true("nothing of it is left", || listed().is_empty());
    assert!(!is_there(&mut caller, &sandbox, "file").await);
}

/// The archive is larger than everything that could hold it on its way.
#[test]
fn a_download_whose_sandbox_is_removed_is_an_error() {
    let gateway = TestGateway::start();
    let sandbox = gateway.create([""; 0]);
    gateway.ok(["exec", &sandbox, "mkdir", "tree"]);
    let script = "head -c 200000000 /dev/zero > tree/data";
    gateway.ok(["exec", &sandbox, "sh", "-c", script]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let from = format!("{sandbox}:tree");
    let download = gateway
        .cli(["cp", &from, "-"])
        .spawn_into(std::process::Stdio::null(), writer.into());
    // It has begun, and is stuck with the rest.
    let mut reader = reader;
    std::io::Read::read_exact(&mut reader, &mut [0; 4096]).expect("the beginning");
    gateway.ok(["rm", "--force", &sandbox]);
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    let ran = download.wait();
    ran.exited(125);
    assert!(!ran.stderr.is_empty());
}
