//! Archive calls. Packing and unpacking are one long piece of blocking work each, with a bounded
//! channel to the stream.
//!
//! A caller who stands still holds a thread, so only some archives are under way at once, others
//! wait, and one that does not move for [`STALL`] is given up.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use cofferdam_proto::supervisor::v1 as wire;
use cofferdam_proto::supervisor::v1::write_archive_request::Part;
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::files::step;
use crate::core::Core;
use crate::files::{self, FileError};

pub(super) type ReadArchiveStream = BoxStream<'static, Result<wire::ArchiveChunk, Status>>;

const STALL: Duration = Duration::from_secs(60);
const CHUNK_BYTES: usize = 256 * 1024;
/// Between thread and stream.
const CHUNKS_MAX: usize = 2;

pub(super) async fn read(
    core: &Arc<Core>,
    request: wire::ReadArchiveRequest,
) -> Result<ReadArchiveStream, Status> {
    let turn = turn(core).await?;
    let workspace = core.workspace.clone();
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    core.tasks.spawn(async move {
        let failures = chunks.clone();
        let runtime = Handle::current();
        let pack = move || {
            let _turn = turn;
            let mut sender = ChunkWriter {
                chunks,
                runtime,
                buffer: BytesMut::new(),
            };
            files::pack(&workspace, &request.path, &mut sender)
        };
        if let Err(status) = step::<(), FileError>(pack).await {
            // Nobody may be there to be told.
            let _ = timeout(STALL, failures.send(Err(status))).await;
        }
    });
    // The first chunk decides between an error of the call and one in the stream.
    let mut receiver = receiver;
    let first = match receiver.recv().await {
        Some(Err(status)) => return Err(status),
        first => first,
    };
    let stream = futures_util::stream::iter(first).chain(ReceiverStream::new(receiver));
    Ok(stream
        .map(|chunk| Ok(wire::ArchiveChunk { data: chunk? }))
        .boxed())
}

pub(super) async fn write(
    core: &Arc<Core>,
    mut requests: Streaming<wire::WriteArchiveRequest>,
) -> Result<wire::WriteArchiveResponse, Status> {
    let first = requests.message().await?.and_then(|request| request.part);
    let Some(Part::Open(open)) = first else {
        return Err(Status::invalid_argument("part: the first must be open"));
    };
    let turn = turn(core).await?;
    let workspace = core.workspace.clone();
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    let runtime = Handle::current();
    let unpack = move || {
        let _turn = turn;
        let reader = ChunkReader {
            chunks: receiver,
            runtime,
            rest: Bytes::new(),
            ended: false,
        };
        files::unpack(&workspace, &open.path, reader)
    };
    let unpacking = step::<_, FileError>(unpack);
    let feeding = feed(&mut requests, chunks);
    // Cancelled, the sender is dropped without an end, and the thread gives up.
    let (unpacked, fed) = tokio::join!(unpacking, feeding);
    let unpacked = match (unpacked, fed) {
        // The caller's own end of the stream is the better reason.
        (Err(_), Err(status)) => return Err(status),
        (unpacked, _) => unpacked?,
    };
    Ok(wire::WriteArchiveResponse {
        entries: unpacked.entries,
        bytes: unpacked.bytes,
    })
}

/// Passes requests on until they end, or nobody wants them any more.
async fn feed(
    requests: &mut Streaming<wire::WriteArchiveRequest>,
    chunks: mpsc::Sender<Option<Bytes>>,
) -> Result<(), Status> {
    loop {
        let message = tokio::select! {
            message = requests.message() => message?,
            () = chunks.closed() => return Ok(()),
        };
        let chunk = match message {
            Some(wire::WriteArchiveRequest {
                part: Some(Part::Data(data)),
            }) => Some(data),
            Some(wire::WriteArchiveRequest {
                part: Some(Part::Open(_)),
            }) => {
                return Err(Status::invalid_argument("part: open only comes first"));
            }
            Some(wire::WriteArchiveRequest { part: None }) => continue,
            None => None,
        };
        let is_end = chunk.is_none();
        if chunks.send(chunk).await.is_err() || is_end {
            return Ok(());
        }
    }
}

async fn turn(core: &Core) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
    let turns = Arc::clone(&core.archive_turns);
    turns
        .acquire_owned()
        .await
        .map_err(|_| Status::unavailable("the supervisor is ending"))
}

/// The thread's end of a stream to the caller.
struct ChunkWriter {
    chunks: mpsc::Sender<Result<Bytes, Status>>,
    runtime: Handle,
    buffer: BytesMut,
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        let chunk = self.buffer.split().freeze();
        let sent = self
            .runtime
            .block_on(timeout(STALL, self.chunks.send(Ok(chunk))));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(CHUNK_BYTES);
        }
        let count = data.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..count]);
        if self.buffer.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            self.send()
        }
    }
}

/// The thread's end of a stream from the caller. `None` is its proper end.
struct ChunkReader {
    chunks: mpsc::Receiver<Option<Bytes>>,
    runtime: Handle,
    rest: Bytes,
    ended: bool,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.runtime.block_on(timeout(STALL, self.chunks.recv())) {
                Ok(Some(Some(data))) => self.rest = data,
                Ok(Some(None)) => self.ended = true,
                Ok(None) | Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest.advance(count);
        Ok(count)
    }
}
