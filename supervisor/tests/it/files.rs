//! Files: whole or not at all, and with the workload's rights.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use bytes::Bytes;
use cofferdam_proto::supervisor::v1::read_file_response::Part as ReadPart;
use cofferdam_proto::supervisor::v1::write_file_request::Part as WritePart;
use cofferdam_proto::supervisor::v1::{
    FileInfo, FileKind, ListDirectoryRequest, MakeDirectoryRequest, PingRequest, ReadFileRequest,
    RemoveFileRequest, StatFileRequest, WriteFileFinish, WriteFileOpen, WriteFileRequest,
    WriteFileResponse,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::gateway::{Client, soon};
use crate::sandbox::{Sandbox, give, is_root, workload_ids};

async fn sandbox() -> (Sandbox, Client) {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    (sandbox, client)
}

fn open(path: &str) -> WriteFileOpen {
    WriteFileOpen {
        path: path.into(),
        ..WriteFileOpen::default()
    }
}

async fn write_parts(client: &Client, parts: Vec<WritePart>) -> Result<WriteFileResponse, Status> {
    let requests = parts
        .into_iter()
        .map(|part| WriteFileRequest { part: Some(part) });
    let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
    Ok(soon(client.clone().write_file(requests))
        .await?
        .into_inner())
}

async fn write(
    client: &Client,
    open: WriteFileOpen,
    data: &[u8],
    sha256: &[u8],
) -> Result<WriteFileResponse, Status> {
    let mut parts = vec![WritePart::Open(open)];
    parts.extend(
        data.chunks(100_000)
            .map(|data| WritePart::Data(Bytes::copy_from_slice(data))),
    );
    let sha256 = Bytes::copy_from_slice(sha256);
    parts.push(WritePart::Finish(WriteFileFinish { sha256 }));
    write_parts(client, parts).await
}

async fn read(client: &Client, request: ReadFileRequest) -> Result<(FileInfo, Vec<u8>), Status> {
    let mut parts = soon(client.clone().read_file(request)).await?.into_inner();
    let (mut info, mut data) = (None, Vec::new());
    while let Some(response) = soon(parts.message()).await? {
        match response.part.expect("a part") {
            ReadPart::Info(first) => info = Some(first),
            ReadPart::Data(piece) => data.extend_from_slice(&piece),
            ReadPart::Digest(digest) => {
                assert_eq!(digest.sha256, Sha256::digest(&data)[..]);
                assert_eq!(digest.size_bytes, data.len() as u64);
                return Ok((info.expect("the info comes first"), data));
            }
        }
    }
    panic!("the digest comes last");
}

fn whole(path: &str) -> ReadFileRequest {
    ReadFileRequest {
        path: path.into(),
        ..ReadFileRequest::default()
    }
}

fn code<T>(result: Result<T, Status>) -> Option<Code> {
    result.err().map(|status| status.code())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("listed").flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_file_is_written_and_read_back() {
    let (sandbox, client) = sandbox().await;
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n ^ (n >> 7)) as u8).collect();
    let digest = Sha256::digest(&data);
    let answer = write(&client, open("file"), &data, &digest)
        .await
        .expect("written");
    assert_eq!(answer.sha256, digest[..]);
    let info = answer.info.expect("the info");
    assert_eq!((info.size_bytes, info.mode), (3_000_000, 0o644));

    let (info, back) = read(&client, whole("file")).await.expect("read");
    assert_eq!(
        (info.kind(), info.size_bytes),
        (FileKind::Regular, 3_000_000)
    );
    assert!(back == data);
    let part = ReadFileRequest {
        path: sandbox
            .workspace()
            .join("file")
            .to_string_lossy()
            .into_owned(),
        offset: 1_000_000,
        length: 500_001,
    };
    let (_, back) = read(&client, part).await.expect("read");
    assert!(back == data[1_000_000..1_500_001]);

    let metadata = std::fs::metadata(sandbox.workspace().join("file")).expect("there");
    assert_eq!((metadata.uid(), metadata.gid()), workload_ids());
    assert_eq!(
        names(&sandbox.workspace()),
        ["file"],
        "no temporary one is left"
    );
}

#[tokio::test]
async fn what_does_not_arrive_whole_leaves_what_was_there() {
    let (sandbox, mut client) = sandbox().await;
    write(&client, open("file"), b"before", b"")
        .await
        .expect("written");
    let wrong = write(&client, open("file"), b"after", &[7; 32]).await;
    assert_eq!(code(wrong), Some(Code::DataLoss));
    let parts = vec![
        WritePart::Open(open("file")),
        WritePart::Data(b"after".as_slice().into()),
    ];
    assert_eq!(
        code(write_parts(&client, parts).await),
        Some(Code::InvalidArgument)
    );

    // Cut in the middle: the caller just goes away.
    let (requests, receiver) = mpsc::channel(4);
    let mut calling = client.clone();
    let call = tokio::spawn(async move { calling.write_file(ReceiverStream::new(receiver)).await });
    for part in [
        WritePart::Open(open("file")),
        WritePart::Data(b"after".as_slice().into()),
    ] {
        soon(requests.send(WriteFileRequest { part: Some(part) }))
            .await
            .expect("sent");
    }
    while names(&sandbox.workspace()).len() < 2 {
        soon(client.ping(PingRequest {})).await.expect("answered");
    }
    call.abort();
    while names(&sandbox.workspace()).len() > 1 {
        soon(client.ping(PingRequest {})).await.expect("answered");
    }
    assert_eq!(
        std::fs::read(sandbox.workspace().join("file")).expect("read"),
        b"before"
    );
}

#[tokio::test]
async fn parents_and_modes_are_as_asked() {
    let (sandbox, client) = sandbox().await;
    assert_eq!(
        code(write(&client, open("a/b/c"), b"", b"").await),
        Some(Code::NotFound)
    );
    let deep = WriteFileOpen {
        path: "a/b/c".into(),
        mode: 0o4750,
        parents: true,
    };
    write(&client, deep, b"x", b"").await.expect("written");
    let mode = |path: &str| {
        let metadata = std::fs::metadata(sandbox.workspace().join(path)).expect("there");
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!((mode("a/b/c"), mode("a/b")), (0o4750, 0o755));
    let silly = WriteFileOpen {
        mode: 0o100644,
        ..open("file")
    };
    assert_eq!(
        code(write(&client, silly, b"", b"").await),
        Some(Code::InvalidArgument)
    );
}

#[tokio::test]
async fn a_link_in_the_files_place_is_replaced_and_not_followed() {
    let (sandbox, client) = sandbox().await;
    let outside = sandbox.directory.path().join("outside");
    std::fs::write(&outside, "untouched").expect("written");
    symlink(&outside, sandbox.workspace().join("link")).expect("linked");
    write(&client, open("link"), b"new", b"")
        .await
        .expect("written");
    assert_eq!(std::fs::read(&outside).expect("read"), b"untouched");
    let metadata = std::fs::symlink_metadata(sandbox.workspace().join("link")).expect("there");
    assert!(metadata.is_file());
}

#[tokio::test]
async fn the_workloads_rights_decide() {
    let (sandbox, mut client) = sandbox().await;
    if !is_root() {
        return crate::sandbox::skip("supervisor and workload have the same rights here");
    }
    let secret = sandbox.directory.path().join("secret");
    std::fs::write(&secret, "root's own").expect("written");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("set");
    let path = secret.to_string_lossy().into_owned();
    assert_eq!(
        code(read(&client, whole(&path)).await),
        Some(Code::PermissionDenied)
    );
    let write = write(&client, open(&path), b"x", b"").await;
    assert_eq!(code(write), Some(Code::PermissionDenied));
    let remove = RemoveFileRequest {
        path,
        recursive: false,
    };
    assert_eq!(
        code(soon(client.remove_file(remove)).await),
        Some(Code::PermissionDenied)
    );
    assert_eq!(std::fs::read(&secret).expect("read"), b"root's own");
}

#[tokio::test]
async fn the_supervisors_own_memory_and_descriptors_are_no_files() {
    let (sandbox, mut client) = sandbox().await;
    let pid = sandbox.child.id();
    for process in ["self", "thread-self", &pid.to_string()] {
        for name in ["mem", "environ", "maps", "status", "auxv"] {
            let path = format!("/proc/{process}/{name}");
            let refused = read(&client, whole(&path)).await;
            assert_eq!(code(refused), Some(Code::PermissionDenied), "{path}");
        }
        for name in ["fd/0", "fd/3", "exe", "cwd/x", "root/etc/passwd"] {
            let path = format!("/proc/{process}/{name}");
            assert!(read(&client, whole(&path)).await.is_err(), "{path}");
            let write = write(&client, open(&path), b"x", b"").await;
            assert!(write.is_err(), "{path}");
        }
        for name in ["fd/3/gateway.sock", "root/tmp/x"] {
            let path = format!("/proc/{process}/{name}");
            let remove = RemoveFileRequest {
                path: path.clone(),
                recursive: true,
            };
            assert!(soon(client.remove_file(remove)).await.is_err(), "{path}");
        }
    }
    // By another name as well.
    symlink("/proc/self", sandbox.workspace().join("me")).expect("linked");
    let refused = read(&client, whole("me/mem")).await;
    assert_eq!(code(refused), Some(Code::PermissionDenied));
    let (_, data) = read(&client, whole("/proc/meminfo"))
        .await
        .expect("nobody's own");
    assert!(data.starts_with(b"MemTotal"));
}

#[tokio::test]
async fn only_regular_files_are_read() {
    let (sandbox, client) = sandbox().await;
    let pipe = sandbox.workspace().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("made");
    for path in ["pipe", ".", "/dev/zero"] {
        let refused = read(&client, whole(path)).await;
        assert_eq!(code(refused), Some(Code::FailedPrecondition), "{path}");
    }
    assert_eq!(
        code(read(&client, whole("nothing")).await),
        Some(Code::NotFound)
    );
    assert_eq!(
        code(read(&client, whole("")).await),
        Some(Code::InvalidArgument)
    );
}

#[tokio::test]
async fn a_directory_is_listed_by_pages_in_order() {
    let (sandbox, mut client) = sandbox().await;
    for number in 0..25 {
        std::fs::write(sandbox.workspace().join(format!("f{number:02}")), "x").expect("written");
    }
    symlink("f00", sandbox.workspace().join("link")).expect("linked");
    let mut found = Vec::new();
    let mut request = ListDirectoryRequest {
        path: ".".into(),
        page_size: 10,
        after: String::new(),
    };
    loop {
        let page = soon(client.list_directory(request.clone()))
            .await
            .expect("listed");
        let page = page.into_inner();
        assert!(page.entries.len() <= 10);
        found.extend(page.entries);
        if !page.more {
            break;
        }
        request.after = found.last().expect("some").path.clone();
    }
    let names: Vec<&str> = found.iter().map(|info| info.path.as_str()).collect();
    assert_eq!(
        (names.len(), names[0], names[24], names[25]),
        (26, "f00", "f24", "link")
    );
    assert_eq!(
        (found[25].kind(), found[25].link_target.as_str()),
        (FileKind::Symlink, "f00")
    );
    let file = ListDirectoryRequest {
        path: "f00".into(),
        ..request
    };
    assert_eq!(
        code(soon(client.list_directory(file)).await),
        Some(Code::FailedPrecondition)
    );
}

#[tokio::test]
async fn links_are_looked_at_or_through() {
    let (sandbox, mut client) = sandbox().await;
    std::fs::write(sandbox.workspace().join("file"), "12345").expect("written");
    symlink("file", sandbox.workspace().join("link")).expect("linked");
    symlink("nowhere", sandbox.workspace().join("broken")).expect("linked");
    let mut stat = async |path: &str, follow| {
        let request = StatFileRequest {
            path: path.into(),
            follow,
        };
        let answer = soon(client.stat_file(request)).await;
        answer.map(|answer| answer.into_inner().info.expect("the info"))
    };
    let link = stat("link", false).await.expect("there");
    assert_eq!(
        (link.kind(), link.link_target.as_str()),
        (FileKind::Symlink, "file")
    );
    let file = stat("link", true).await.expect("there");
    assert_eq!((file.kind(), file.size_bytes), (FileKind::Regular, 5));
    assert_eq!(code(stat("broken", true).await), Some(Code::NotFound));
    assert!(stat("broken", false).await.is_ok());
    assert_eq!(
        stat("/", false).await.expect("there").kind(),
        FileKind::Directory
    );
}

#[tokio::test]
async fn directories_are_made_and_removed() {
    let (sandbox, mut client) = sandbox().await;
    let mut make = async |path: &str, parents, mode| {
        let path = path.into();
        soon(client.make_directory(MakeDirectoryRequest {
            path,
            parents,
            mode,
        }))
        .await
    };
    assert_eq!(code(make("a/b/c", false, 0).await), Some(Code::NotFound));
    make("a/b/c", true, 0o700).await.expect("made");
    make("a/b/c", true, 0).await.expect("there already");
    assert_eq!(code(make("a", false, 0).await), Some(Code::AlreadyExists));
    let metadata = std::fs::metadata(sandbox.workspace().join("a/b/c")).expect("there");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o700);

    let outside = sandbox.directory.path().join("outside");
    std::fs::create_dir(&outside).expect("made");
    std::fs::write(outside.join("file"), "x").expect("written");
    symlink(&outside, sandbox.workspace().join("a/b/link")).expect("linked");
    std::fs::write(sandbox.workspace().join("a/b/file"), "x").expect("written");
    give(&sandbox.workspace());
    let mut remove = async |path: &str, recursive| {
        soon(client.remove_file(RemoveFileRequest {
            path: path.into(),
            recursive,
        }))
        .await
    };
    assert_eq!(
        code(remove("a", false).await),
        Some(Code::FailedPrecondition)
    );
    remove("a", true).await.expect("removed");
    assert_eq!(code(remove("a", true).await), Some(Code::NotFound));
    assert_eq!(code(remove("..", true).await), Some(Code::InvalidArgument));
    assert_eq!(
        names(&outside),
        ["file"],
        "a link is removed, not what it leads to"
    );
}
