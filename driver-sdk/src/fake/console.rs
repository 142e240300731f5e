//! The last bytes that a supervisor wrote to its stderr.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;

use crate::driver::DriverStream;

/// More than any supervisor has to say.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Console(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: Mutex<VecDeque<u8>>,
    /// All bytes ever written; wakes the followers.
    written: watch::Sender<u64>,
}

impl Console {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            kept: Mutex::default(),
            written: watch::Sender::new(0),
        }))
    }

    /// Takes everything from `source` until it ends.
    pub(super) async fn fill(self, mut source: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            let mut kept = self.lock();
            kept.extend(&buffer[..count]);
            let excess = kept.len().saturating_sub(KEPT_BYTES_MAX);
            kept.drain(..excess);
            self.0
                .written
                .send_modify(|written| *written += count as u64);
        }
    }

    /// The last `tail` bytes (0: all that are kept), then what follows.
    pub(super) fn read(&self, tail: u64, follow: bool) -> DriverStream<Bytes> {
        let console = self.clone();
        Box::pin(async_stream::stream! {
            let mut news = console.0.written.subscribe();
            let tail = if tail == 0 { u64::MAX } else { tail };
            let mut from = news.borrow().saturating_sub(tail);
            loop {
                let (bytes, end) = console.after(from);
                if !bytes.is_empty() {
                    yield Ok(bytes);
                }
                from = end;
                // The console is kept alive by this stream, so the sender cannot be gone.
                if !follow || news.wait_for(|written| *written > from).await.is_err() {
                    return;
                }
            }
        })
    }

    /// What is kept after the first `from` bytes, and how many bytes there were in all.
    fn after(&self, from: u64) -> (Bytes, u64) {
        let kept = self.lock();
        let end = *self.0.written.borrow();
        let oldest = end - kept.len() as u64;
        let skip = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        (kept.iter().skip(skip).copied().collect(), end)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
