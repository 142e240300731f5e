//! The byte stream to the gateway, as one type over all its kinds.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use crate::readiness;
use bytes::{Buf as _, Bytes};
use cofferdam_proto::hello::{Frame, Scanner};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// A stream, and bytes of it that were read too early.
#[derive(Debug)]
pub(crate) struct Wire {
    pushback: Bytes,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Socket(UnixStream),
    Relayed {
        relay: Arc<Relay>,
        watch: Option<Scanner>,
    },
}

/// A stream that outlives sessions: a virtio-serial port, or standard input and output. It does not
/// end when the gateway does; another gateway just begins to speak.
#[derive(Debug)]
pub(crate) struct Relay {
    reader: AsyncFd<OwnedFd>,
    writer: AsyncFd<OwnedFd>,
    /// A Hello that came in the middle of a session, and what followed it.
    interrupted_by: Mutex<Vec<u8>>,
}

impl Relay {
    /// Both descriptors must not block.
    pub(crate) fn new(reader: OwnedFd, writer: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            reader: readiness::watch(reader, Interest::READABLE)?,
            writer: readiness::watch(writer, Interest::WRITABLE)?,
            interrupted_by: Mutex::default(),
        })
    }

    /// What began the next session, if the last one was interrupted by it.
    fn take_interruption(&self) -> Vec<u8> {
        std::mem::take(
            &mut self
                .interrupted_by
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub(crate) fn was_interrupted(&self) -> bool {
        !self
            .interrupted_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

impl Wire {
    pub(crate) fn socket(stream: UnixStream) -> Self {
        Self {
            pushback: Bytes::new(),
            stream: Stream::Socket(stream),
        }
    }

    pub(crate) fn relayed(relay: Arc<Relay>) -> Self {
        let pushback = relay.take_interruption().into();
        Self {
            pushback,
            stream: Stream::Relayed { relay, watch: None },
        }
    }

    /// The hello is done: gives back what it read too much of. On a relayed stream a new Hello ends
    /// the stream from now on, since it means that another gateway speaks.
    pub(crate) fn begin_session(&mut self, rest: Bytes) {
        self.pushback = rest;
        if let Stream::Relayed { watch, .. } = &mut self.stream {
            *watch = Some(Scanner::new());
        }
    }

    fn poll_read_stream(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Socket(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Relayed { relay, .. } => poll_read_fd(&relay.reader, context, buffer),
        }
    }
}

/// Looks for a Hello among what was just read; if there is one, nothing was read.
fn interrupt(relay: &Relay, watch: &mut Option<Scanner>, buffer: &mut ReadBuf<'_>, before: usize) {
    let Some(scanner) = watch else { return };
    scanner.push(&buffer.filled()[before..]);
    while let Some(frame) = scanner.next_frame() {
        let Frame::Hello(_) = &frame else { continue };
        let mut bytes = frame.encode().unwrap_or_default();
        bytes.extend(watch.take().unwrap_or_default().into_rest());
        *relay
            .interrupted_by
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = bytes;
        buffer.set_filled(before);
        return;
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Stream::Relayed { relay, .. } = &this.stream
            && relay.was_interrupted()
        {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if this.pushback.is_empty() {
            ready!(this.poll_read_stream(context, buffer))?;
        } else {
            let count = this.pushback.len().min(buffer.remaining());
            buffer.put_slice(&this.pushback[..count]);
            this.pushback.advance(count);
        }
        if let Stream::Relayed { relay, watch } = &mut this.stream {
            interrupt(relay, watch, buffer, before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Socket(stream) => Pin::new(stream).poll_write(context, data),
            Stream::Relayed { relay, .. } => poll_write_fd(&relay.writer, context, data),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Socket(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Relayed { relay, .. } => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                poll_write_fd(&relay.writer, context, first.map_or(&[], |slice| slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.stream, Stream::Socket(_))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Socket(stream) => Pin::new(stream).poll_shutdown(context),
            // It is there for the next session.
            Stream::Relayed { .. } => Poll::Ready(Ok(())),
        }
    }
}

fn poll_read_fd(
    fd: &AsyncFd<OwnedFd>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let mut ready = ready!(fd.poll_read_ready(context))?;
        let spare = buffer.initialize_unfilled();
        match ready.try_io(|fd| Ok(rustix::io::read(fd, spare)?)) {
            Ok(Ok(count)) => {
                buffer.advance(count);
                return Poll::Ready(Ok(()));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Poll::Ready(Err(error)),
            Err(_would_block) => {}
        }
    }
}

fn poll_write_fd(
    fd: &AsyncFd<OwnedFd>,
    context: &mut Context<'_>,
    data: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        let mut ready = ready!(fd.poll_write_ready(context))?;
        match ready.try_io(|fd| Ok(rustix::io::write(fd, data)?)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(result) => return Poll::Ready(result),
            Err(_would_block) => {}
        }
    }
}
