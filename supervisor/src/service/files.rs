//! File calls: each step runs on a thread for blocking work, as the workload's user.

use std::sync::Arc;

use bytes::Bytes;
use cofferdam_proto::supervisor::v1 as wire;
use cofferdam_proto::supervisor::v1::read_file_response::Part as ReadPart;
use cofferdam_proto::supervisor::v1::write_file_request::Part as WritePart;
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use tokio::task::spawn_blocking;
use tonic::{Status, Streaming};

use crate::core::Core;
use crate::files::{self, Facts, FileError, FileKind, Reader, Writer};

pub(super) type ReadFileStream = BoxStream<'static, Result<wire::ReadFileResponse, Status>>;

/// Runs one step. Cancelled, the step still runs to its end.
pub(super) async fn step<T, E>(
    step: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Status>
where
    T: Send + 'static,
    E: Into<Status> + Send + 'static,
{
    match spawn_blocking(step).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(Status::internal(format!(
            "a file operation failed: {error}"
        ))),
    }
}

pub(super) fn info(facts: &Facts) -> wire::FileInfo {
    let kind = match facts.kind {
        FileKind::Regular => wire::FileKind::Regular,
        FileKind::Directory => wire::FileKind::Directory,
        FileKind::Symlink => wire::FileKind::Symlink,
        FileKind::Special => wire::FileKind::Special,
    };
    wire::FileInfo {
        path: facts.path.clone(),
        kind: kind as i32,
        size_bytes: facts.size_bytes,
        mode: facts.mode,
        uid: facts.uid,
        gid: facts.gid,
        modify_time_unix_ms: facts.modify_time_unix_ms,
        link_target: facts.link_target.clone(),
    }
}

/// One step after another: a reader who stands still holds no thread.
pub(super) async fn read(
    core: &Core,
    request: wire::ReadFileRequest,
) -> Result<ReadFileStream, Status> {
    let workspace = core.workspace.clone();
    let open = move || Reader::open(&workspace, &request.path, request.offset, request.length);
    let reader = step(open).await?;
    let first = ReadPart::Info(info(reader.facts()));
    let pieces = unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let piece = step(move || reader.next().map(|piece| (piece, reader))).await;
        Some(match piece {
            Ok((Some(data), reader)) => (Ok(ReadPart::Data(data)), Some(reader)),
            Ok((None, reader)) => {
                let (sha256, size_bytes) = reader.finish();
                let sha256 = Bytes::copy_from_slice(&sha256);
                (
                    Ok(ReadPart::Digest(wire::FileDigest { sha256, size_bytes })),
                    None,
                )
            }
            Err(status) => (Err(status), None),
        })
    });
    let parts = futures_util::stream::iter([Ok(first)]).chain(pieces);
    Ok(parts
        .map(|part| Ok(wire::ReadFileResponse { part: Some(part?) }))
        .boxed())
}

/// A writer that leaves nothing behind if it is dropped halfway, on whatever thread that happens: a
/// call may be cancelled while one of its steps runs, and then the step's result is what is dropped.
struct Pending(Option<Writer>);

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(writer) = self.0.take() {
            // Removing needs the workload's rights.
            drop(spawn_blocking(move || writer.abandon()));
        }
    }
}

pub(super) async fn write(
    core: &Core,
    mut requests: Streaming<wire::WriteFileRequest>,
) -> Result<wire::WriteFileResponse, Status> {
    let first = requests.message().await?.and_then(|request| request.part);
    let Some(WritePart::Open(open)) = first else {
        return Err(Status::invalid_argument("part: the first must be open"));
    };
    let workspace = core.workspace.clone();
    let create = move || {
        let writer = Writer::create(&workspace, &open.path, open.mode, open.parents)?;
        Ok::<_, FileError>(Pending(Some(writer)))
    };
    let mut pending = step(create).await?;
    while let Some(request) = requests.message().await? {
        match request.part {
            Some(WritePart::Data(data)) => {
                let write = move || {
                    if let Some(writer) = &mut pending.0 {
                        writer.write(&data)?;
                    }
                    Ok::<_, FileError>(pending)
                };
                pending = step(write).await?;
            }
            Some(WritePart::Finish(finish)) => {
                return step(move || finish_writing(pending, &finish.sha256)).await;
            }
            Some(WritePart::Open(_)) => {
                return Err(Status::invalid_argument("part: open only comes first"));
            }
            None => {}
        }
    }
    Err(nothing_written())
}

fn finish_writing(mut pending: Pending, sha256: &[u8]) -> Result<wire::WriteFileResponse, Status> {
    let writer = pending.0.take().ok_or_else(nothing_written)?;
    let (facts, sha256) = writer.finish(sha256)?;
    Ok(wire::WriteFileResponse {
        info: Some(info(&facts)),
        sha256: Bytes::copy_from_slice(&sha256),
    })
}

fn nothing_written() -> Status {
    Status::invalid_argument("part: the requests ended without finish; nothing was written")
}

pub(super) async fn stat(
    core: &Core,
    request: wire::StatFileRequest,
) -> Result<wire::StatFileResponse, Status> {
    let workspace = core.workspace.clone();
    let facts = step(move || files::stat(&workspace, &request.path, request.follow)).await?;
    Ok(wire::StatFileResponse {
        info: Some(info(&facts)),
    })
}

pub(super) async fn list(
    core: &Core,
    request: wire::ListDirectoryRequest,
) -> Result<wire::ListDirectoryResponse, Status> {
    let workspace = core.workspace.clone();
    let list = move || files::list(&workspace, &request.path, request.page_size, &request.after);
    let page = step(list).await?;
    let entries = page.entries.iter().map(info).collect();
    Ok(wire::ListDirectoryResponse {
        entries,
        more: page.more,
    })
}

pub(super) async fn make_directory(
    core: &Core,
    request: wire::MakeDirectoryRequest,
) -> Result<wire::MakeDirectoryResponse, Status> {
    let workspace = core.workspace.clone();
    let make =
        move || files::make_directory(&workspace, &request.path, request.parents, request.mode);
    step(make).await?;
    Ok(wire::MakeDirectoryResponse {})
}

pub(super) async fn remove(
    core: &Arc<Core>,
    request: wire::RemoveFileRequest,
) -> Result<wire::RemoveFileResponse, Status> {
    let workspace = core.workspace.clone();
    step(move || files::remove(&workspace, &request.path, request.recursive)).await?;
    Ok(wire::RemoveFileResponse {})
}
