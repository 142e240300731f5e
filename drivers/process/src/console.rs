//! What a supervisor printed, and what it prints from now on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use cofferdam_driver_sdk::{DriverError, DriverStream};
use tokio::time::sleep;

use crate::launch;

/// A console is for people: they do not see a quarter of a second.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// One message's worth.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much of what was seen is looked for after the file has been rotated.
const ANCHOR_BYTES: usize = 256;

/// The last `tail_bytes` (0: all that is kept), then what follows, until the sandbox is removed.
pub(crate) fn read(state_dir: PathBuf, tail_bytes: u64, follow: bool) -> DriverStream<Bytes> {
    Box::pin(async_stream::try_stream! {
        let Some(mut seen) = look(&state_dir).await? else { return };
        let tail = usize::try_from(tail_bytes).unwrap_or(usize::MAX);
        let skip = if tail == 0 { 0 } else { seen.len().saturating_sub(tail) };
        for chunk in seen[skip..].chunks(CHUNK_BYTES) {
            yield Bytes::copy_from_slice(chunk);
        }
        if !follow {
            return;
        }
        loop {
            sleep(POLL_INTERVAL).await;
            let Some(now) = look(&state_dir).await? else { return };
            for chunk in news(&seen, &now).chunks(CHUNK_BYTES) {
                yield Bytes::copy_from_slice(chunk);
            }
            seen = now;
        }
    })
}

async fn look(state_dir: &Path) -> Result<Option<Vec<u8>>, DriverError> {
    let state_dir = state_dir.to_owned();
    tokio::task::spawn_blocking(move || Some(launch::observe(&state_dir)?.console()))
        .await
        .map_err(|error| DriverError::internal("reading a console").because(error))
}

/// What `now` holds after all of `seen`. The older part may have been cut off at the front.
fn news<'a>(seen: &[u8], now: &'a [u8]) -> &'a [u8] {
    if let Some(rest) = now.strip_prefix(seen) {
        return rest;
    }
    let anchor = &seen[seen.len().saturating_sub(ANCHOR_BYTES)..];
    let found = now
        .windows(anchor.len().max(1))
        .rposition(|window| window == anchor);
    match found {
        Some(at) => &now[at + anchor.len()..],
        None => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_what_follows_also_after_a_rotation() {
        assert_eq!(news(b"", b"abc"), b"abc");
        assert_eq!(news(b"abc", b"abcdef"), b"def");
        assert_eq!(news(b"abc", b"abc"), b"");
        let old: Vec<u8> = (0..2000_u32).flat_map(|n| n.to_be_bytes()).collect();
        let mut now = old[4000..].to_vec();
        now.extend(b"new");
        assert_eq!(news(&old, &now), b"new");
        assert_eq!(news(&old, b"all anew"), b"all anew");
    }
}
