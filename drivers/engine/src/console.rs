//! The console: what the supervisor said, as the engine kept it, or, where its stdout is the stream,
//! as the relay heard it.

use bytes::Bytes;
use cofferdam_driver_sdk::proto::ReadConsoleRequest;
use cofferdam_driver_sdk::{DriverError, DriverStream};
use futures_util::StreamExt as _;

use crate::client::Engine;
use crate::error;
use crate::relay;
use crate::sandbox::Tracked;

/// A log of an engine is bounded by a megabyte; what is read of it at once too.
const TAIL_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) async fn read(
    engine: &Engine,
    tracked: &Tracked,
    container: &str,
    request: &ReadConsoleRequest,
) -> Result<DriverStream<Bytes>, DriverError> {
    let tail = usize::try_from(request.tail_bytes).unwrap_or(usize::MAX);
    if relay::is_for(&tracked.record()) {
        if request.follow {
            return Ok(Box::pin(tracked.follow_heard(tail).map(Ok)));
        }
        let heard = tracked.heard(tail);
        return Ok(Box::pin(futures_util::stream::once(async { Ok(heard) })));
    }
    if tail == 0 {
        let all = engine.logs(container, request.follow).await;
        let all = all.map_err(error::engine)?;
        return Ok(Box::pin(all.map(|piece| piece.map_err(error::engine))));
    }
    // Engines count lines, not bytes: the whole is read, and then what follows it.
    let kept = engine.logs(container, false).await.map_err(error::engine)?;
    let kept = collect(kept, TAIL_BYTES_MAX).await?;
    let start = kept.len().saturating_sub(tail);
    let length = kept.len();
    let tail = Bytes::from(kept).slice(start..);
    if !request.follow {
        return Ok(Box::pin(futures_util::stream::once(async { Ok(tail) })));
    }
    let follow = engine.logs(container, true).await.map_err(error::engine)?;
    Ok(Box::pin(async_stream::try_stream! {
        yield tail;
        let mut seen = length;
        let mut follow = std::pin::pin!(follow);
        while let Some(piece) = follow.next().await {
            let mut piece = piece.map_err(error::engine)?;
            let known = piece.len().min(seen);
            seen -= known;
            let news = piece.split_off(known);
            if !news.is_empty() {
                yield news;
            }
        }
    }))
}

/// The last `bytes_max` of a stream that ends.
async fn collect(
    stream: impl futures_util::Stream<Item = Result<Bytes, crate::client::EngineError>>,
    bytes_max: usize,
) -> Result<Vec<u8>, DriverError> {
    let mut stream = std::pin::pin!(stream);
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece.map_err(error::engine)?);
        if all.len() > bytes_max * 2 {
            all.drain(..all.len() - bytes_max);
        }
    }
    Ok(all)
}
