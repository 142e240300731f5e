//! Between blocking readers and writers on threads, and streams on the event loop.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes, BytesMut};
use cofferdam_proto::gateway::v1::ArchiveEnd;
use cofferdam_proto::gateway::v1::write_archive_request::Part;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::CHUNK_BYTES;

/// What has gone or come, to be compared at the other end.
#[derive(Debug, Default)]
pub(super) struct Total {
    digest: Sha256,
    bytes: u64,
}

impl Total {
    pub(super) fn add(&mut self, data: &[u8]) {
        self.digest.update(data);
        self.bytes += data.len() as u64;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn end(self) -> ArchiveEnd {
        ArchiveEnd {
            sha256: Bytes::copy_from_slice(&self.digest.finalize()),
            size_bytes: self.bytes,
            skipped: 0,
        }
    }
}

/// `Write` for a thread; chunks come out of the channel. Without `finish` there is no end, and the
/// other side knows that something is missing.
#[derive(Debug)]
pub(super) struct ChannelWriter {
    sender: mpsc::Sender<Part>,
    buffer: BytesMut,
    total: Total,
}

impl ChannelWriter {
    pub(super) fn new(sender: mpsc::Sender<Part>) -> Self {
        Self {
            sender,
            buffer: BytesMut::with_capacity(CHUNK_BYTES),
            total: Total::default(),
        }
    }

    /// That was all; how many bytes it was.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        let end = std::mem::take(&mut self.total).end();
        let bytes = end.size_bytes;
        self.send(Part::End(end))?;
        Ok(bytes)
    }

    fn send(&self, part: Part) -> io::Result<()> {
        self.sender
            .blocking_send(part)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = data.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..length]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK_BYTES));
        self.total.add(&full);
        self.send(Part::Data(full.freeze()))
    }
}

/// `Read` for a thread; chunks go into the channel. An error there is an error here, so that a
/// stream that was cut does not look like one that has ended.
#[derive(Debug)]
pub(super) struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl ChannelReader {
    pub(super) fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(mut receiver: mpsc::Receiver<Part>) -> Vec<Part> {
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    #[test]
    fn only_what_was_finished_has_an_end() {
        let (sender, receiver) = mpsc::channel(8);
        let mut writer = ChannelWriter::new(sender);
        writer.write_all(b"hello").unwrap();
        writer.flush().unwrap();
        drop(writer);
        assert_eq!(parts(receiver), [Part::Data("hello".into())]);

        let (sender, receiver) = mpsc::channel(8);
        let mut writer = ChannelWriter::new(sender);
        writer.write_all(b"hello").unwrap();
        assert_eq!(writer.finish().unwrap(), 5);
        let end = ArchiveEnd {
            sha256: Sha256::digest(b"hello").to_vec().into(),
            size_bytes: 5,
            skipped: 0,
        };
        assert_eq!(
            parts(receiver),
            [Part::Data("hello".into()), Part::End(end)]
        );
    }
}
