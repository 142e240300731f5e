//! Archive calls. Packing and unpacking are one long piece of blocking work each, with a bounded
//! channel to the stream.
//!
//! A caller who stands still holds a thread, so only some archives are under way at once, others
//! wait, and one that does not move for [`STALL`] is given up.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use cofferdam_proto::PIECE_BYTES_MAX;
use cofferdam_proto::supervisor::v1 as wire;
use cofferdam_proto::supervisor::v1::archive_chunk::Part as OutPart;
use cofferdam_proto::supervisor::v1::write_archive_request::Part;
use futures_util::stream::{BoxStream, StreamExt as _};
use sha2::{Digest as _, Sha256};
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
const CHUNK_BYTES: usize = PIECE_BYTES_MAX;
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
                total: Total::default(),
            };
            let skipped = files::pack(&workspace, &request.path, &mut sender)?;
            sender.finish(skipped).map_err(|_| FileError::Stream)
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
        .map(|part| Ok(wire::ArchiveChunk { part: Some(part?) }))
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
    tokio::pin!(unpacking, feeding);
    let unpacked = tokio::select! {
        // What comes behind a refused entry is not waited for.
        unpacked = &mut unpacking => {
            let unpacked = unpacked?;
            feeding.await?;
            unpacked
        }
        fed = &mut feeding => {
            // Without an end the thread gives up, and this is the better reason.
            let unpacked = unpacking.await;
            fed?;
            unpacked?
        }
    };
    Ok(wire::WriteArchiveResponse {
        entries: unpacked.entries,
        bytes: unpacked.bytes,
    })
}

/// Passes requests on until their end, which has to be said and to be true. The unpacking may have
/// seen enough before that.
async fn feed(
    requests: &mut Streaming<wire::WriteArchiveRequest>,
    chunks: mpsc::Sender<Option<Bytes>>,
) -> Result<(), Status> {
    let mut total = Total::default();
    loop {
        let message = timeout(STALL, requests.message())
            .await
            .map_err(|_| Status::aborted("nothing of the archive came for a minute"))?;
        let Some(message) = message? else {
            return Err(Status::data_loss(
                "part: the requests ended without end; the archive was cut",
            ));
        };
        match message.part {
            Some(Part::Data(data)) => {
                total.add(&data);
                let _seen_enough = chunks.send(Some(data)).await;
            }
            Some(Part::End(end)) => {
                total.check(&end)?;
                let _seen_enough = chunks.send(None).await;
                return Ok(());
            }
            Some(Part::Open(_)) => {
                return Err(Status::invalid_argument("part: open only comes first"));
            }
            None => {}
        }
    }
}

/// What has come or gone, to be compared at the other end.
#[derive(Default)]
struct Total {
    digest: Sha256,
    size_bytes: u64,
}

impl Total {
    fn add(&mut self, data: &[u8]) {
        self.digest.update(data);
        self.size_bytes += data.len() as u64;
    }

    fn end(&mut self) -> wire::ArchiveEnd {
        let sha256 = std::mem::take(&mut self.digest).finalize();
        wire::ArchiveEnd {
            sha256: Bytes::copy_from_slice(&sha256),
            size_bytes: self.size_bytes,
            skipped: 0,
        }
    }

    fn check(&mut self, said: &wire::ArchiveEnd) -> Result<(), Status> {
        let here = self.end();
        if said.size_bytes != here.size_bytes {
            return Err(Status::data_loss(format!(
                "end.size_bytes: {} were sent, {} have arrived",
                said.size_bytes, here.size_bytes
            )));
        }
        if !said.sha256.is_empty() && said.sha256 != here.sha256 {
            return Err(Status::data_loss(
                "end.sha256: what has arrived is not what was sent",
            ));
        }
        Ok(())
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
    chunks: mpsc::Sender<Result<OutPart, Status>>,
    runtime: Handle,
    buffer: BytesMut,
    total: Total,
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        let chunk = self.buffer.split().freeze();
        self.total.add(&chunk);
        self.send_part(OutPart::Data(chunk))
    }

    /// All that is archived has been written.
    fn finish(mut self, skipped: u64) -> io::Result<()> {
        self.flush()?;
        let end = self.total.end();
        self.send_part(OutPart::End(wire::ArchiveEnd { skipped, ..end }))
    }

    fn send_part(&mut self, part: OutPart) -> io::Result<()> {
        let sent = self
            .runtime
            .block_on(timeout(STALL, self.chunks.send(Ok(part))));
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
