//! `cp`: files are checked and atomic, directories travel as tar.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cofferdam_proto::gateway::v1::file_info::Kind;
use cofferdam_proto::gateway::v1::*;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::support::{Fake, code, shown, text};

fn info(kind: Kind) -> FileInfo {
    FileInfo {
        kind: kind as i32,
        mode: 0o4750,
        ..FileInfo::default()
    }
}

fn sha256(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(data))
}

/// A sandbox with these paths.
fn with_paths(fake: &Fake, paths: &'static [(&'static str, Kind)]) {
    fake.on_stat_file(move |request| {
        assert_eq!(request.sandbox, "box");
        let found = paths
            .iter()
            .find(|(path, _)| *path == request.path.trim_end_matches('/'));
        match found {
            Some((_, kind)) => Ok(StatFileResponse {
                info: Some(info(*kind)),
            }),
            None => Err(Status::not_found("no such file")),
        }
    });
}

fn serves(fake: &Fake, data: &'static [u8], checksum: Option<Bytes>) {
    fake.on_read_file(move |_| {
        use read_file_response::Part;
        let mut parts = vec![Part::Info(info(Kind::Regular))];
        parts.extend(
            data.chunks(100_000)
                .map(|chunk| Part::Data(Bytes::from_static(chunk))),
        );
        parts.extend(checksum.clone().map(Part::Sha256));
        Ok(parts
            .into_iter()
            .map(|part| Ok(ReadFileResponse { part: Some(part) }))
            .collect())
    });
}

static DATA: [u8; 300_001] = [42; 300_001];

#[test]
fn a_file_comes_out_whole_with_its_mode_but_no_special_bits() {
    let fake = Fake::start();
    with_paths(&fake, &[("out/data", Kind::Regular)]);
    serves(&fake, &DATA, Some(sha256(&DATA)));
    let output = fake.run(&["cp", "box:out/data", "."]);
    assert_eq!(shown(&output), "exit: 0\n--- stdout\n--- stderr\n");
    let path = fake.dir().join("data");
    assert_eq!(std::fs::read(&path).unwrap(), DATA);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o750
    );
    assert_eq!(fake.run(&["cp", "box:out/data", "-"]).stdout, DATA);
    let json = text(&fake.run(&["cp", "--json", "box:out/data", "x"]).stdout);
    assert_eq!(
        json,
        format!(
            "{{\"bytes\":300001,\"entries\":1,\"sha256\":\"{}\",\"skipped\":0}}\n",
            hex(&DATA)
        )
    );
}

fn hex(data: &[u8]) -> String {
    sha256(data)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn a_file_that_differs_or_ends_early_leaves_nothing_behind() {
    for checksum in [Some(sha256(b"something else")), None] {
        let fake = Fake::start();
        with_paths(&fake, &[("data", Kind::Regular)]);
        serves(&fake, &DATA, checksum);
        std::fs::write(fake.dir().join("data"), "old").unwrap();
        let output = fake.run(&["cp", "box:data", "."]);
        assert_eq!(code(&output), 125);
        assert!(
            text(&output.stderr).starts_with("error: data differs: "),
            "{output:?}"
        );
        assert_eq!(std::fs::read(fake.dir().join("data")).unwrap(), b"old");
        let left = std::fs::read_dir(fake.dir()).unwrap().count();
        assert_eq!(left, 2, "only the old file and the socket");
    }
}

/// What a sandbox was sent: path, mode, content.
type Sent = Arc<Mutex<Vec<(WriteFileOpen, Vec<u8>)>>>;

fn takes_files(fake: &Fake) -> Sent {
    let sent = Sent::default();
    let keep = sent.clone();
    fake.on_write_file(move |parts| {
        use write_file_request::Part;
        let mut open = None;
        let mut data = Vec::new();
        let mut finished = false;
        for part in parts {
            match part.part.unwrap() {
                Part::Open(first) => open = Some(first),
                Part::Data(chunk) => data.extend_from_slice(&chunk),
                Part::Finish(finish) => {
                    assert_eq!(finish.sha256, sha256(&data));
                    finished = true;
                }
            }
        }
        assert!(finished);
        let sha256 = sha256(&data);
        keep.lock().unwrap().push((open.unwrap(), data));
        Ok(WriteFileResponse { info: None, sha256 })
    });
    sent
}

#[test]
fn a_file_goes_in_under_the_name_that_people_expect() {
    let fake = Fake::start();
    with_paths(
        &fake,
        &[
            (".", Kind::Directory),
            ("dir", Kind::Directory),
            ("file", Kind::Regular),
        ],
    );
    let sent = takes_files(&fake);
    std::fs::write(fake.dir().join("up"), DATA).unwrap();
    std::fs::set_permissions(
        fake.dir().join("up"),
        std::fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    for target in ["box:", "box:dir", "box:dir/", "box:file", "box:new"] {
        assert_eq!(code(&fake.run(&["cp", "up", target])), 0, "{target}");
    }
    assert_eq!(code(&fake.run(&["cp", "-p", "up", "box:a/b/c"])), 0);
    let sent = sent.lock().unwrap();
    let paths: Vec<_> = sent
        .iter()
        .map(|(open, _)| (open.path.as_str(), open.parents))
        .collect();
    let expected = [
        ("up", false),
        ("dir/up", false),
        ("dir/up", false),
        ("file", false),
        ("new", false),
        ("a/b/c", true),
    ];
    assert_eq!(paths, expected);
    assert!(
        sent.iter()
            .all(|(open, data)| open.mode == 0o640 && *data == DATA)
    );
}

#[test]
fn stdin_goes_in_as_a_file() {
    let fake = Fake::start();
    with_paths(&fake, &[]);
    let sent = takes_files(&fake);
    let mut child = fake
        .cofferdam()
        .args(["cp", "-", "box:x"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&DATA).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(sent.lock().unwrap()[0].1, DATA);
}

#[test]
fn a_refused_file_shows_the_refusal() {
    let fake = Fake::start();
    with_paths(&fake, &[]);
    fake.on_write_file(|_| Err(Status::resource_exhausted("no space left in the workspace")));
    std::fs::write(fake.dir().join("up"), DATA).unwrap();
    assert_eq!(
        shown(&fake.run(&["cp", "up", "box:x"])),
        "exit: 125\n--- stdout\n--- stderr\nerror: limit reached: no space left in the workspace\n"
    );
}

#[test]
fn a_directory_goes_in_and_comes_out_the_same() {
    let fake = Fake::start();
    let from = fake.dir().join("from");
    std::fs::create_dir_all(from.join("sub")).unwrap();
    std::fs::write(from.join("sub/data"), DATA).unwrap();
    std::os::unix::fs::symlink("sub", from.join("link")).unwrap();
    with_paths(
        &fake,
        &[("there", Kind::Directory), ("there/from", Kind::Directory)],
    );
    let archives: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    let store = archives.clone();
    fake.on_write_archive(move |parts| {
        use write_archive_request::Part;
        let mut path = String::new();
        let mut data = Vec::new();
        for part in parts {
            match part.part.unwrap() {
                Part::Open(open) => path = open.path,
                Part::Data(chunk) => data.extend_from_slice(&chunk),
                Part::End(end) => assert_eq!(end, archive_end(&data)),
            }
        }
        store.lock().unwrap().insert(path, data);
        Ok(WriteArchiveResponse {
            entries: 4,
            bytes: 1,
        })
    });
    assert_eq!(code(&fake.run(&["cp", "from", "box:there"])), 0);
    assert_eq!(code(&fake.run(&["cp", "from/.", "box:there"])), 0);
    assert_eq!(code(&fake.run(&["cp", "from", "box:new"])), 0);
    let paths: Vec<_> = archives.lock().unwrap().keys().cloned().collect();
    assert_eq!(paths, ["new", "there", "there/from"]);

    let stored = archives.clone();
    fake.on_read_archive(move |request| {
        let data = stored.lock().unwrap()[&request.path].clone();
        let end = archive_chunk::Part::End(archive_end(&data));
        Ok(data
            .chunks(70_000)
            .map(piece)
            .chain([end])
            .map(|part| Ok(ArchiveChunk { part: Some(part) }))
            .collect())
    });
    std::fs::create_dir(fake.dir().join("back")).unwrap();
    assert_eq!(
        shown(&fake.run(&["cp", "box:there/from", "back"])),
        "exit: 0\n--- stdout\n--- stderr\n"
    );
    let back = fake.dir().join("back/from");
    assert_eq!(std::fs::read(back.join("link/data")).unwrap(), DATA);
    assert_eq!(
        fake.run(&["cp", "box:there/from", "-"]).stdout,
        archives.lock().unwrap()["there/from"]
    );
}

fn piece(data: &[u8]) -> archive_chunk::Part {
    archive_chunk::Part::Data(data.to_vec().into())
}

fn archive_end(data: &[u8]) -> ArchiveEnd {
    ArchiveEnd {
        sha256: Sha256::digest(data).to_vec().into(),
        size_bytes: data.len() as u64,
        skipped: 0,
    }
}

#[test]
fn what_the_sandbox_leaves_out_is_told() {
    let fake = Fake::start();
    with_paths(&fake, &[("dir", Kind::Directory)]);
    fake.on_read_archive(|_| {
        let data = vec![0; 1024];
        let end = ArchiveEnd {
            skipped: 3,
            ..archive_end(&data)
        };
        let parts = [piece(&data), archive_chunk::Part::End(end)];
        Ok(parts
            .map(|part| Ok(ArchiveChunk { part: Some(part) }))
            .into())
    });
    for target in ["to", "-"] {
        let output = fake.run(&["cp", "box:dir", target]);
        assert_eq!(code(&output), 0);
        let told = text(&output.stderr);
        assert!(told.contains("3 devices, sockets or pipes"), "{output:?}");
    }
}

#[test]
fn a_directory_that_is_cut_off_is_an_error() {
    let fake = Fake::start();
    with_paths(&fake, &[("dir", Kind::Directory)]);
    fake.on_read_archive(|_| {
        Ok(vec![
            Ok(ArchiveChunk {
                part: Some(piece(&[0; 100])),
            }),
            Err(Status::unavailable("the session is lost")),
        ])
    });
    let output = fake.run(&["cp", "box:dir", "to"]);
    assert_eq!(code(&output), 125);
    assert!(
        text(&output.stderr).contains("the session is lost"),
        "{output:?}"
    );
}

/// The tar in it is whole, and still: nobody has said so, or has said something else.
#[test]
fn an_archive_whose_end_is_missing_or_wrong_is_an_error() {
    let fake = Fake::start();
    with_paths(&fake, &[("dir", Kind::Directory)]);
    let empty = vec![0; 1024];
    let ends = [
        (None, "ended early"),
        (Some(archive_end(b"something else")), "checksums differ"),
    ];
    for (end, words) in ends {
        let parts: Vec<_> = [piece(&empty)]
            .into_iter()
            .chain(end.map(archive_chunk::Part::End))
            .collect();
        fake.on_read_archive(move |_| {
            let parts = parts.iter().cloned();
            Ok(parts
                .map(|part| Ok(ArchiveChunk { part: Some(part) }))
                .collect())
        });
        for to in ["to", "-"] {
            let output = fake.run(&["cp", "box:dir", to]);
            assert_eq!(code(&output), 125, "{output:?}");
            let said = text(&output.stderr);
            assert!(said.contains(words), "{said}");
        }
    }
}

#[test]
fn wrong_pairs_are_refused() {
    let fake = Fake::start();
    with_paths(&fake, &[("pipe", Kind::Special)]);
    let all: Vec<String> = [
        ["a", "b"],
        ["a:x", "b:y"],
        ["box:nope", "."],
        ["box:pipe", "."],
        ["nope", "box:x"],
    ]
    .iter()
    .map(|[from, to]| shown(&fake.run(&["cp", from, to])))
    .collect();
    insta::assert_snapshot!("cp_refusals", all.join("\n"));
}
