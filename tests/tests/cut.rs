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
        skipped: 0,
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

/// The beginning of a tar: a file of this size, of which so much is there.
fn file_in_a_tar(name: &str, size_bytes: usize, there_bytes: usize) -> Bytes {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("a short name");
    header.set_mode(0o644);
    header.set_size(size_bytes as u64);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.resize(512 + there_bytes, b'n');
    if there_bytes == size_bytes {
        tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    }
    tar.into()
}

fn upload_into(sandbox: &str, path: &str, tar: &Bytes, end: bool) -> Vec<WriteArchiveRequest> {
    use write_archive_request::Part;
    let open = Part::Open(WriteArchiveOpen {
        sandbox: sandbox.to_owned(),
        path: path.to_owned(),
    });
    let pieces = tar.chunks(64 << 10).map(|piece| tar.slice_ref(piece));
    let mut parts = vec![open];
    parts.extend(pieces.map(Part::Data));
    parts.extend(end.then(|| {
        Part::End(ArchiveEnd {
            sha256: Bytes::new(),
            size_bytes: tar.len() as u64,
            skipped: 0,
        })
    }));
    let parts = parts.into_iter();
    parts
        .map(|part| WriteArchiveRequest { part: Some(part) })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_copy_that_is_cut_leaves_the_file_that_it_was_to_replace() {
    let gateway = TestGateway::start();
    let mut caller = client::connect(&gateway).await;
    let sandbox = client::create(&mut caller, SandboxRequest::default()).await;
    let sh = |script: &str| gateway.ok(["exec", &sandbox, "sh", "-c", script]);
    sh("mkdir up; echo old > up/file");
    let (requests, receiver) = tokio::sync::mpsc::channel(64);
    let half = file_in_a_tar("file", 1 << 20, 1 << 19);
    let target = sandbox.clone();
    let feeder = tokio::spawn(async move {
        for request in upload_into(&target, "up", &half, false) {
            requests.send(request).await.expect("the call is under way");
        }
        // The call stays open.
        requests
    });
    let mut other = caller.clone();
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let call = tokio::spawn(async move { other.write_archive(receiver).await });
    let requests = feeder.await.expect("fed");
    tokio::task::block_in_place(|| {
        wait::until_true("it is being written", || sh("ls -A up | wc -l") == "2");
    });
    assert_eq!(sh("cat up/file"), "old", "while the new one is coming");
    call.abort();
    drop(requests);
    tokio::task::block_in_place(|| {
        wait::until_true("nothing of it is left", || sh("ls -A up") == "file");
    });
    assert_eq!(sh("cat up/file"), "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_copy_for_which_there_is_no_space_leaves_what_was_there() {
    let gateway = TestGateway::start();
    let sandbox = gateway.create(["--disk", "4M"]);
    let sh = |script: &str| gateway.ok(["exec", &sandbox, "sh", "-c", script]);
    sh("mkdir up; echo old > up/file");
    let mut caller = client::connect(&gateway).await;
    let large = file_in_a_tar("file", 6 << 20, 6 << 20);
    let parts = tokio_stream::iter(upload_into(&sandbox, "up", &large, true));
    let refused = caller.write_archive(parts).await.expect_err("no space");
    assert!(refused.message().contains("No space left"), "{refused}");
    assert_eq!(sh("ls -A up"), "file");
    assert_eq!(sh("cat up/file"), "old");
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
