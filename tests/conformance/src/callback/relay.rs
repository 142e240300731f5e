//! What a stream can meet on its way: small pieces, and pauses between them.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::net::UnixStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How bytes are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// At most so many bytes at a time.
    pub(crate) piece_bytes: usize,
    /// Before each piece.
    pub(crate) pause: Duration,
}

/// The stream, carried in this way.
pub(super) fn shaped(
    stream: UnixStream,
    shape: Shape,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> DuplexStream {
    let (near, far) = duplex(64 * 1024);
    tasks.spawn(async move {
        let (mut from_stream, mut to_stream) = stream.into_split();
        let (mut from_near, mut to_near) = split(far);
        let carried = async {
            // Either end takes the whole stream with it, as a relay's does.
            tokio::select! {
                () = carry(&mut from_stream, &mut to_near, shape) => {}
                () = carry(&mut from_near, &mut to_stream, shape) => {}
            }
        };
        cancel.run_until_cancelled(carried).await;
    });
    near
}

async fn carry<R, W>(from: &mut R, to: &mut W, shape: Shape)
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let mut buffer = vec![0; shape.piece_bytes];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        sleep(shape.pause).await;
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}
