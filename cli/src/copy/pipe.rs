//! Between blocking readers and writers on threads, and streams on the event loop.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::CHUNK_BYTES;

/// `Write` for a thread; chunks come out of the channel.
#[derive(Debug)]
pub(super) struct ChannelWriter {
    sender: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl ChannelWriter {
    pub(super) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self {
            sender,
            buffer: BytesMut::with_capacity(CHUNK_BYTES),
        }
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
        self.sender
            .blocking_send(full.freeze())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
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
