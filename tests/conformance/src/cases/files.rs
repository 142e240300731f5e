//! Files and archives, over the byte stream.

use cofferdam_proto::supervisor::v1::{FileKind, WriteFileOpen};
use tonic::Code;

use crate::callback::Session;
use crate::case::{Case, Stop, Verdict, ensure, run};
use crate::needs::Need;
use crate::process::say;
use crate::random;
use crate::remote::{Ending, Remote, must_be, told};
use crate::suite::Suite;

const ONE_TREE: &str = "give the supervisor the very file tree that the workload has: one mount \
    namespace, one workspace, the workload's user in the bootstrap";

pub(super) const CASES: &[Case] = &[
    Case {
        id: "interactive.files.round-trip",
        source: "WriteFile, ReadFile",
        says: "A file that is written is there for commands, whole, with its mode, and belongs to \
               the workload; and what a command writes can be read.",
        fix: ONE_TREE,
        needs: &[Need::Supervised],
        run: run!(round_trip),
    },
    Case {
        id: "interactive.files.atomic",
        source: "WriteFile",
        says: "A write that is not finished, or whose digest is another, leaves nothing behind and \
               the old file untouched.",
        fix: "the workspace's file system must be able to rename within a directory",
        needs: &[Need::Supervised],
        run: run!(atomic),
    },
    Case {
        id: "interactive.files.missing",
        source: "ReadFile, WriteFile",
        says: "NOT_FOUND for a file, or for the directory of a file, that is not there.",
        fix: ONE_TREE,
        needs: &[Need::Supervised],
        run: run!(missing),
    },
    Case {
        id: "interactive.files.permission",
        source: "Supervisor",
        says: "Everything is done with the rights of the sandbox's user, not the supervisor's.",
        fix: "tell the bootstrap who the workload is; do not run the workload as root",
        needs: &[Need::Supervised],
        run: run!(permission),
    },
    Case {
        id: "interactive.files.listing",
        source: "ListDirectory",
        says: "Sorted by name, and paged.",
        fix: ONE_TREE,
        needs: &[Need::Supervised],
        run: run!(listing),
    },
    Case {
        id: "interactive.archives.round-trip",
        source: "ReadArchive, WriteArchive",
        says: "A tree goes out as a tar with its end, and comes in again the same.",
        fix: ONE_TREE,
        needs: &[Need::Supervised],
        run: run!(archive),
    },
    Case {
        id: "interactive.archives.cut",
        source: "WriteArchive",
        says: "DATA_LOSS when the requests end without `end`, or it says something else than what \
               has arrived.",
        fix: "hand over the supervisor of the handshake, and no other",
        needs: &[Need::Supervised],
        run: run!(cut_archive),
    },
];

fn open(path: &str, mode: u32) -> WriteFileOpen {
    WriteFileOpen {
        path: path.to_owned(),
        mode,
        parents: false,
    }
}

async fn with_remote(suite: &Suite) -> Result<(Session, Remote), Stop> {
    let (_driver, _subject, session) = suite.with_session().await?;
    let remote = Remote::new(suite, &session);
    Ok((session, remote))
}

async fn round_trip(suite: Suite) -> Verdict {
    let (session, remote) = with_remote(&suite).await?;
    // Some pieces of a relay's buffers, and a rest.
    let data = random::long(300_001);
    let written = remote.write(open("up", 0o750), &data, Ending::Whole).await;
    written.map_err(|status| told("WriteFile", &status))?;
    let seen = say(&suite, &session, "wc -c < up; ls -ln up").await?;
    let words: Vec<&str> = seen.split_whitespace().collect();
    let (size, mode, owner) = (word(&words, 0), word(&words, 1), word(&words, 3));
    ensure!(
        size == "300001" && mode.starts_with("-rwxr-x---"),
        "a command sees another file than was written: {seen:?}"
    );
    let own = say(&suite, &session, "id -u").await?;
    ensure!(
        owner == own,
        "the file belongs to user {owner}, and the workload is {own}"
    );
    say(&suite, &session, "cat up up > down").await?;
    let read = remote.read("down").await;
    let read = read.map_err(|status| told("ReadFile", &status))?;
    ensure!(
        read.data == [data.as_slice(), &data].concat(),
        "{} bytes came back, and not those that a command wrote",
        read.data.len()
    );
    ensure!(
        read.info.kind() == FileKind::Regular && read.info.size_bytes == 600_002,
        "its metadata: {:?}",
        read.info
    );
    Ok(())
}

fn word<'a>(words: &[&'a str], index: usize) -> &'a str {
    words.get(index).copied().unwrap_or_default()
}

async fn atomic(suite: Suite) -> Verdict {
    let (session, remote) = with_remote(&suite).await?;
    say(&suite, &session, "mkdir d && echo old > d/file").await?;
    let new = random::long(100_000);
    let wrong = remote.write(open("d/file", 0), &new, Ending::WrongDigest);
    must_be("a write with another digest", wrong.await, Code::DataLoss)?;
    let cut = remote.write(open("d/file", 0), &new, Ending::Cut).await;
    ensure!(cut.is_err(), "a write without its end succeeded");
    let left = say(&suite, &session, "cat d/file; ls -A d").await?;
    ensure!(
        left == "old\nfile",
        "what is there after two writes that were not finished: {left:?}"
    );
    let whole = remote.write(open("d/file", 0), b"new", Ending::Whole).await;
    whole.map_err(|status| told("WriteFile over a file", &status))?;
    let left = say(&suite, &session, "cat d/file; ls -A d").await?;
    ensure!(left == "newfile", "what is there after a write: {left:?}");
    Ok(())
}

async fn missing(suite: Suite) -> Verdict {
    let (_session, remote) = with_remote(&suite).await?;
    let absent = remote.read("absent").await;
    must_be("ReadFile of what is not there", absent, Code::NotFound)?;
    let absent = remote.stat("absent").await;
    must_be("StatFile of what is not there", absent, Code::NotFound)?;
    let below = remote.write(open("no/where", 0), b"x", Ending::Whole).await;
    must_be("WriteFile below no directory", below, Code::NotFound)?;
    let parents = WriteFileOpen {
        parents: true,
        ..open("no/where", 0)
    };
    let made = remote.write(parents, b"x", Ending::Whole).await;
    made.map_err(|status| told("WriteFile with `parents`", &status))?;
    let info = remote.stat("no/where").await;
    let info = info.map_err(|status| told("StatFile", &status))?;
    ensure!(info.size_bytes == 1, "its metadata: {info:?}");
    Ok(())
}

async fn permission(suite: Suite) -> Verdict {
    let (session, remote) = with_remote(&suite).await?;
    let script = "mkdir closed && chmod 0555 closed && echo x > secret && chmod 0 secret";
    say(&suite, &session, script).await?;
    let read = remote.read("secret").await;
    must_be("ReadFile of mode 0", read, Code::PermissionDenied)?;
    let write = remote.write(open("closed/x", 0), b"x", Ending::Whole);
    must_be(
        "WriteFile into a directory of mode 0555",
        write.await,
        Code::PermissionDenied,
    )
}

async fn listing(suite: Suite) -> Verdict {
    let (session, remote) = with_remote(&suite).await?;
    say(&suite, &session, "mkdir l && cd l && touch c a e b d").await?;
    for page_size in [0, 1, 2, 5] {
        let names = remote.names("l", page_size).await;
        let names = names.map_err(|status| told("ListDirectory", &status))?;
        ensure!(
            names == ["a", "b", "c", "d", "e"],
            "in pages of {page_size}: {names:?}"
        );
    }
    Ok(())
}

/// What a tree is, in a few lines.
const DESCRIBE: &str = "find . | LC_ALL=C sort; cat a/b/file; ls -l a/tool | cut -c 1-10; \
    readlink a/link; wc -c < a/big";

async fn archive(suite: Suite) -> Verdict {
    let (session, remote) = with_remote(&suite).await?;
    let make = "mkdir -p from/a/b/empty && cd from && echo text > a/b/file && \
        echo '#!/bin/sh' > a/tool && chmod 0755 a/tool && ln -s b/file a/link && \
        head -c 700000 /dev/zero > a/big";
    say(&suite, &session, make).await?;
    let tar = remote.pack("from").await;
    let tar = tar.map_err(|status| told("ReadArchive", &status))?;
    let unpacked = remote.unpack("to", &tar, Ending::Whole).await;
    unpacked.map_err(|status| told("WriteArchive", &status))?;
    let before = say(&suite, &session, &format!("cd from && {DESCRIBE}")).await?;
    let after = say(&suite, &session, &format!("cd to && {DESCRIBE}")).await?;
    ensure!(
        before == after,
        "the tree was {before:?}, and came back as {after:?}"
    );
    let own = "find to -user $(id -u) | wc -l; find to | wc -l";
    let counts = say(&suite, &session, own).await?;
    let counts: Vec<&str> = counts.split_whitespace().collect();
    ensure!(
        word(&counts, 0) == word(&counts, 1),
        "not all of it belongs to the workload: {counts:?}"
    );
    Ok(())
}

async fn cut_archive(suite: Suite) -> Verdict {
    let (session, remote) = with_remote(&suite).await?;
    say(&suite, &session, "mkdir from && echo x > from/file").await?;
    let tar = remote.pack("from").await;
    let tar = tar.map_err(|status| told("ReadArchive", &status))?;
    let cut = remote.unpack("to", &tar, Ending::Cut).await;
    must_be("an archive without `end`", cut, Code::DataLoss)?;
    let wrong = remote.unpack("to", &tar, Ending::WrongDigest).await;
    must_be("an archive with another digest", wrong, Code::DataLoss)
}
