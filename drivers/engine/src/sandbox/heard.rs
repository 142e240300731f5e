//! What a supervisor said on its stderr, where no engine keeps it: the relay has heard it.

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A supervisor says little; what matters is the last of it.
const KEPT_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Heard(watch::Sender<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The last of it.
    bytes: Vec<u8>,
    /// How much there ever was.
    total: u64,
}

impl Kept {
    /// What is still kept of that which came after the first `seen` bytes.
    fn since(&self, seen: u64) -> Bytes {
        let news = usize::try_from(self.total.saturating_sub(seen)).unwrap_or(usize::MAX);
        Bytes::copy_from_slice(&self.bytes[self.bytes.len().saturating_sub(news)..])
    }
}

impl Heard {
    pub(super) fn add(&self, piece: &[u8]) {
        self.0.send_modify(|kept| {
            kept.bytes.extend_from_slice(piece);
            kept.total += piece.len() as u64;
            if kept.bytes.len() > 2 * KEPT_BYTES_MAX {
                let surplus = kept.bytes.len() - KEPT_BYTES_MAX;
                kept.bytes.drain(..surplus);
            }
        });
    }

    /// The last so many bytes of what was heard; 0: all that is kept.
    pub(super) fn last(&self, tail: usize) -> Bytes {
        let kept = self.0.borrow();
        kept.since(start(&kept, tail))
    }

    /// The last, and then what is heard until the end. Whoever reads too slowly misses what is not
    /// kept any more.
    pub(super) fn follow(
        &self,
        tail: usize,
        end: CancellationToken,
    ) -> impl Stream<Item = Bytes> + Send + use<> {
        let mut changes = self.0.subscribe();
        async_stream::stream! {
            let mut seen = start(&changes.borrow_and_update(), tail);
            loop {
                let news = {
                    let kept = changes.borrow_and_update();
                    let news = kept.since(seen);
                    seen = kept.total;
                    news
                };
                if !news.is_empty() {
                    yield news;
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = end.cancelled() => return,
                }
            }
        }
    }
}

/// How much comes before the last so many bytes.
fn start(kept: &Kept, tail: usize) -> u64 {
    let tail = if tail == 0 { usize::MAX } else { tail };
    kept.total - kept.bytes.len().min(tail) as u64
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[test]
    fn the_last_of_it_is_kept() {
        let heard = Heard::default();
        heard.add(b"one");
        heard.add(b"two");
        assert_eq!(heard.last(0), "onetwo");
        assert_eq!(heard.last(4), "etwo");
        heard.add(&[b'x'; 3 * KEPT_BYTES_MAX]);
        assert_eq!(heard.last(0).len(), KEPT_BYTES_MAX);
        heard.add(b"end");
        assert_eq!(heard.last(4), "xend");
    }

    #[tokio::test]
    async fn who_follows_hears_what_was_and_what_comes_until_the_end() {
        let heard = Heard::default();
        heard.add(b"before");
        let end = CancellationToken::new();
        let mut follow = std::pin::pin!(heard.follow(3, end.clone()));
        assert_eq!(follow.next().await.unwrap(), "ore");
        heard.add(b"a");
        heard.add(b"b");
        assert_eq!(follow.next().await.unwrap(), "ab");
        end.cancel();
        assert_eq!(follow.next().await, None);
    }
}
