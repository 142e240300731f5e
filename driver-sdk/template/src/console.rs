//! What a sandbox's supervisor has printed, and what it prints from now on: for "why did it never
//! come up".

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_driver_sdk::{DriverError, DriverStream};
use tokio::time::sleep;

/// A person does not see a quarter of a second.
const INTERVAL: Duration = Duration::from_millis(250);
const CHUNK_BYTES: u64 = 64 * 1024;

/// The last `tail_bytes` (0: everything), then what follows until the sandbox is removed.
pub(crate) fn read(path: PathBuf, tail_bytes: u64, follow: bool) -> DriverStream<Bytes> {
    Box::pin(async_stream::try_stream! {
        let length = std::fs::metadata(&path).map_or(0, |about| about.len());
        let mut offset = match tail_bytes {
            0 => 0,
            tail => length.saturating_sub(tail),
        };
        loop {
            let Some(chunk) = chunk(&path, offset)? else { return };
            offset += chunk.len() as u64;
            if !chunk.is_empty() {
                yield chunk;
            } else if follow {
                sleep(INTERVAL).await;
            } else {
                return;
            }
        }
    })
}

/// What is at `offset`; none when the file is gone.
fn chunk(path: &PathBuf, offset: u64) -> Result<Option<Bytes>, DriverError> {
    let mut data = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset))?;
        file.take(CHUNK_BYTES).read_to_end(&mut data)
    });
    match read {
        Ok(_) => Ok(Some(data.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DriverError::internal("reading a console").because(error)),
    }
}
