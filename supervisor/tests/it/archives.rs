//! Archives: everything comes through, and nothing lands outside.

use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use cofferdam_proto::supervisor::v1::write_archive_request::Part;
use cofferdam_proto::supervisor::v1::{
    ArchiveEnd, ReadArchiveRequest, WriteArchiveOpen, WriteArchiveRequest, WriteArchiveResponse,
    archive_chunk,
};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use tonic::{Code, Status};

use crate::gateway::{Client, soon};
use crate::sandbox::{Sandbox, give};

async fn sandbox() -> (Sandbox, Client) {
    let mut sandbox = Sandbox::start();
    let client = sandbox.session().await;
    (sandbox, client)
}

/// What says that this is the whole archive.
fn end(tar: &[u8]) -> ArchiveEnd {
    ArchiveEnd {
        sha256: Sha256::digest(tar).to_vec().into(),
        size_bytes: tar.len() as u64,
        skipped: 0,
    }
}

async fn unpack(client: &Client, path: &str, tar: &[u8]) -> Result<WriteArchiveResponse, Status> {
    unpack_as(client, path, tar, Some(end(tar))).await
}

async fn unpack_as(
    client: &Client,
    path: &str,
    tar: &[u8],
    end: Option<ArchiveEnd>,
) -> Result<WriteArchiveResponse, Status> {
    let mut parts = vec![Part::Open(WriteArchiveOpen { path: path.into() })];
    parts.extend(
        tar.chunks(70_001)
            .map(|data| Part::Data(Bytes::copy_from_slice(data))),
    );
    parts.extend(end.map(Part::End));
    let requests = parts
        .into_iter()
        .map(|part| WriteArchiveRequest { part: Some(part) });
    let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
    Ok(soon(client.clone().write_archive(requests))
        .await?
        .into_inner())
}

async fn pack(client: &Client, path: &str) -> Result<Vec<u8>, Status> {
    Ok(pack_and_count(client, path).await?.0)
}

/// And how many entries it says that it has left out.
async fn pack_and_count(client: &Client, path: &str) -> Result<(Vec<u8>, u64), Status> {
    let request = ReadArchiveRequest { path: path.into() };
    let mut chunks = soon(client.clone().read_archive(request))
        .await?
        .into_inner();
    let mut tar = Vec::new();
    let mut said = None;
    while let Some(chunk) = soon(chunks.message()).await? {
        assert_eq!(said, None, "the end is the last");
        match chunk.part.expect("a part") {
            archive_chunk::Part::Data(data) => tar.extend_from_slice(&data),
            archive_chunk::Part::End(end) => said = Some(end),
        }
    }
    let said = said.expect("an end");
    let skipped = said.skipped;
    assert_eq!(
        said,
        ArchiveEnd {
            skipped,
            ..end(&tar)
        }
    );
    Ok((tar, skipped))
}

/// An archive of entries whose names and links are as they are, also bad ones.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_mtime(1_000_000_000);
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let data = if is_link { "" } else { content };
        header.set_size(data.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(data.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

const FILE: EntryType = EntryType::Regular;

fn count(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("listed").count()
}

#[tokio::test]
async fn a_tree_comes_out_and_goes_in_again_as_it_was() {
    let (sandbox, client) = sandbox().await;
    let root = sandbox.workspace().join("tree");
    let long = "long-".repeat(40);
    std::fs::create_dir_all(root.join("empty")).expect("made");
    std::fs::create_dir_all(root.join(&long).join(&long)).expect("made");
    let big: Vec<u8> = (0..1_000_003u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    std::fs::write(root.join("big"), &big).expect("written");
    std::fs::write(root.join(&long).join(&long).join("ümläut"), "deep").expect("written");
    std::fs::write(root.join("script"), "#!/bin/sh\n").expect("written");
    let mode = std::fs::Permissions::from_mode(0o750);
    std::fs::set_permissions(root.join("script"), mode).expect("set");
    symlink("../anywhere", root.join("link")).expect("linked");
    symlink(format!("/{long}{long}"), root.join("long-link")).expect("linked");
    let pipe = rustix::fs::Mode::from_raw_mode(0o666);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), fifo, pipe, 0).expect("made");

    give(&root);
    let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("bound");
    let (tar, skipped) = pack_and_count(&client, "tree").await.expect("packed");
    drop(socket);
    assert_eq!(skipped, 2, "the pipe and the socket are counted");
    let unpacked = unpack(&client, "copy", &tar).await.expect("unpacked");
    let copy = sandbox.workspace().join("copy");
    assert_eq!((unpacked.entries, unpacked.bytes), (8, 1_000_003 + 4 + 10));
    assert!(std::fs::read(copy.join("big")).expect("read") == big);
    let deep = std::fs::read(copy.join(&long).join(&long).join("ümläut"));
    assert_eq!(deep.expect("read"), b"deep");
    let script = std::fs::metadata(copy.join("script")).expect("there");
    assert_eq!(script.permissions().mode() & 0o7777, 0o750);
    assert_eq!(
        script
            .modified()
            .expect("a time")
            .elapsed()
            .expect("past")
            .as_secs()
            / 600,
        0
    );
    let link = std::fs::read_link(copy.join("link")).expect("a link");
    assert_eq!(link, Path::new("../anywhere"));
    let link = std::fs::read_link(copy.join("long-link")).expect("a link");
    assert_eq!(link, Path::new(&format!("/{long}{long}")));
    assert!(copy.join("empty").is_dir());
    assert!(!copy.join("pipe").exists(), "pipes are left out");
}

#[tokio::test]
async fn other_programs_understand_the_archive_and_are_understood() {
    let (sandbox, client) = sandbox().await;
    if Command::new("tar").arg("--version").output().is_err() {
        return crate::sandbox::skip("there is no tar");
    }
    let long = "x".repeat(150);
    std::fs::create_dir(sandbox.workspace().join("d")).expect("made");
    std::fs::write(sandbox.workspace().join("d").join(&long), "hello").expect("written");
    let tar = pack(&client, "d").await.expect("packed");
    let file = sandbox.directory.path().join("d.tar");
    std::fs::write(&file, tar).expect("written");
    let out = sandbox.directory.path().join("out");
    std::fs::create_dir(&out).expect("made");
    let status = Command::new("tar")
        .arg("-xf")
        .arg(&file)
        .arg("-C")
        .arg(&out)
        .status();
    assert!(status.expect("runs").success());
    assert_eq!(std::fs::read(out.join(&long)).expect("read"), b"hello");
    for format in ["gnu", "pax", "ustar", "v7"] {
        let mut command = Command::new("tar");
        command
            .arg(format!("--format={format}"))
            .arg("-C")
            .arg("/usr/share")
            .args(["-cf", "-"]);
        let tar = command.arg("terminfo").output().expect("runs").stdout;
        if tar.len() > 20_480 {
            unpack(&client, format, &tar).await.expect("unpacked");
            assert!(sandbox.workspace().join(format).join("terminfo").is_dir());
        }
    }
}

#[tokio::test]
async fn a_single_file_has_its_own_name() {
    let (sandbox, client) = sandbox().await;
    std::fs::write(sandbox.workspace().join("file"), "hello").expect("written");
    let tar = pack(&client, "file").await.expect("packed");
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut entries = archive.entries().expect("entries");
    let mut entry = entries.next().expect("one").expect("whole");
    assert_eq!(entry.path().expect("a path"), Path::new("file"));
    let mut text = String::new();
    entry.read_to_string(&mut text).expect("read");
    assert_eq!(text, "hello");
    assert!(entries.next().is_none());
    assert_eq!(
        pack(&client, "nothing").await.expect_err("missing").code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn nothing_lands_outside() {
    let (sandbox, client) = sandbox().await;
    let outside = sandbox.workspace().join("outside");
    std::fs::create_dir(&outside).expect("made");
    std::fs::write(outside.join("kept"), "kept").expect("written");
    let target = outside.to_string_lossy().into_owned();
    let absolute = format!("{target}/new");
    let cases: Vec<Vec<(&str, EntryType, &str)>> = vec![
        vec![("../outside/new", FILE, "x")],
        vec![("a/../../outside/new", FILE, "x")],
        vec![(&absolute, FILE, "x")],
        vec![
            ("link", EntryType::Symlink, &target),
            ("link/new", FILE, "x"),
        ],
        vec![
            ("link", EntryType::Symlink, "../outside"),
            ("link/new", FILE, "x"),
        ],
        vec![
            ("link", EntryType::Symlink, "../outside"),
            ("link", EntryType::Directory, ""),
        ],
        vec![
            ("a", EntryType::Symlink, "."),
            ("a/b", EntryType::Symlink, "../.."),
            ("a/b/workspace/outside/new", FILE, "x"),
        ],
        vec![("hard", EntryType::Link, "../outside/kept")],
        vec![("hard", EntryType::Link, &absolute)],
        vec![
            ("link", EntryType::Symlink, "../outside"),
            ("hard", EntryType::Link, "link/kept"),
            ("hard", FILE, "overwritten"),
        ],
        vec![("device", EntryType::Char, "")],
        vec![("pipe", EntryType::Fifo, "")],
    ];
    for (number, entries) in cases.iter().enumerate() {
        let into = format!("into-{number}");
        let refused = unpack(&client, &into, &archive(entries)).await;
        let status = refused.expect_err("refused");
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "{entries:?}: {status}"
        );
        assert_eq!(count(&outside), 1, "{entries:?}");
        assert_eq!(std::fs::read(outside.join("kept")).expect("read"), b"kept");
    }
}

#[tokio::test]
async fn files_are_replaced_and_links_in_their_place_are_not_followed() {
    let (sandbox, client) = sandbox().await;
    let kept = sandbox.workspace().join("kept");
    std::fs::write(&kept, "kept").expect("written");
    let into = sandbox.workspace().join("into");
    std::fs::create_dir(&into).expect("made");
    symlink(&kept, into.join("file")).expect("linked");
    std::fs::write(into.join("old"), "old").expect("written");
    give(&sandbox.workspace());
    let tar = archive(&[
        ("./", EntryType::Directory, ""),
        ("file", FILE, "new"),
        ("old", FILE, "new"),
        ("d/", EntryType::Directory, ""),
        ("d/hard", EntryType::Link, "old"),
        ("ok", EntryType::Symlink, "d"),
        ("ok/through", FILE, "a link that stays below"),
    ]);
    let unpacked = unpack(&client, "into", &tar).await.expect("unpacked");
    assert_eq!(unpacked.entries, 6);
    assert_eq!(std::fs::read(&kept).expect("read"), b"kept");
    assert_eq!(std::fs::read(into.join("file")).expect("read"), b"new");
    assert_eq!(std::fs::read(into.join("d/hard")).expect("read"), b"new");
    assert!(into.join("d/through").exists());
}

#[tokio::test]
async fn what_was_there_stays_until_all_of_its_replacement_has_come() {
    let (sandbox, client) = sandbox().await;
    let into = sandbox.workspace().join("into");
    std::fs::create_dir(&into).expect("made");
    std::fs::write(into.join("file"), "old").expect("written");
    give(&sandbox.workspace());
    let new = "new ".repeat(100_000);
    let tar = archive(&[("before", FILE, "whole"), ("file", FILE, &new)]);
    let header_ends = 3 * 512;
    // In the middle of the file; its data is all there, but not that of the archive's end.
    for length in [header_ends, header_ends + 1, header_ends + new.len() / 2] {
        for said in [None, Some(end(&tar[..length]))] {
            let refused = unpack_as(&client, "into", &tar[..length], said.clone()).await;
            refused.expect_err("cut");
            let kept = std::fs::read(into.join("file")).expect("read");
            assert_eq!(kept, b"old", "{length} {said:?}");
            assert_eq!(count(&into), 2, "{length} {said:?}");
        }
    }
    unpack(&client, "into", &tar).await.expect("unpacked");
    assert!(std::fs::read_to_string(into.join("file")).expect("read") == new);
    assert_eq!(count(&into), 2);
}

#[tokio::test]
async fn a_directory_is_not_replaced_by_something_else() {
    let (sandbox, client) = sandbox().await;
    let into = sandbox.workspace().join("into");
    std::fs::create_dir_all(into.join("d")).expect("made");
    std::fs::write(into.join("source"), "x").expect("written");
    give(&sandbox.workspace());
    for (kind, content) in [
        (FILE, "x"),
        (EntryType::Symlink, "source"),
        (EntryType::Link, "source"),
    ] {
        let tar = archive(&[("d", kind, content)]);
        let refused = unpack(&client, "into", &tar).await;
        refused.expect_err("a directory is there");
        assert!(into.join("d").is_dir());
        assert_eq!(count(&into), 2, "{kind:?}");
    }
    // A link to what it already is.
    let twice = archive(&[
        ("link", EntryType::Link, "source"),
        ("link", EntryType::Link, "source"),
    ]);
    unpack(&client, "into", &twice).await.expect("unpacked");
    assert_eq!(count(&into), 3);
}

#[tokio::test]
async fn an_archive_without_its_end_is_no_success() {
    let (sandbox, client) = sandbox().await;
    let tar = archive(&[("a", FILE, "hello"), ("b", FILE, "hello")]);
    for length in [0, 100, 512 + 3, 1024, 1024 + 100, 2048] {
        let refused = unpack(&client, "into", &tar[..length]).await;
        let status = refused.expect_err("not whole");
        assert_eq!(status.code(), Code::InvalidArgument, "{length}: {status}");
    }
    let mut garbage = tar;
    garbage[..100].fill(0xff);
    assert!(unpack(&client, "into", &garbage).await.is_err());
    let missing = unpack(&client, "no/parent", &archive(&[]))
        .await
        .expect_err("no parent");
    assert_eq!(missing.code(), Code::NotFound);
    drop(sandbox);
}

#[tokio::test]
async fn an_archive_whose_end_is_not_said_or_not_true_is_no_success() {
    let (_sandbox, client) = sandbox().await;
    let tar = archive(&[("a", FILE, "hello")]);
    let whole = end(&tar);
    let short = ArchiveEnd {
        size_bytes: whole.size_bytes - 1,
        ..whole.clone()
    };
    let other = ArchiveEnd {
        sha256: vec![7; 32].into(),
        ..whole.clone()
    };
    // The tar itself is whole each time.
    for said in [None, Some(short), Some(other)] {
        let refused = unpack_as(&client, "into", &tar, said.clone()).await;
        let status = refused.expect_err("not whole");
        assert_eq!(status.code(), Code::DataLoss, "{said:?}: {status}");
    }
    let unchecked = ArchiveEnd {
        sha256: Bytes::new(),
        ..whole
    };
    let unpacked = unpack_as(&client, "into", &tar, Some(unchecked)).await;
    assert_eq!(unpacked.expect("unpacked").entries, 1);
}
