//! A byte stream that can be cut from outside, and that remembers how it began and ended.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How many first bytes tell what a peer speaks: one HTTP/2 frame head.
const HEAD_BYTES: usize = 9;

/// Why a connection ended whose peer did not answer pings.
const SILENT: &str = "it does not answer";

/// What the first bytes from a peer look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    /// It has not said a whole frame head.
    Silent,
    /// It began with SETTINGS, as an HTTP/2 server must.
    Http2,
    /// It began like an HTTP/1 server.
    Http1,
    /// It sent our own first bytes back.
    Echo,
    /// Anything else.
    Other,
}

/// What is known of a stream, shared with its users.
#[derive(Debug)]
pub(super) struct TapState {
    cut: CancellationToken,
    ended: CancellationToken,
    silence: Option<Duration>,
    facts: Mutex<Facts>,
}

#[derive(Debug)]
struct Facts {
    head: Vec<u8>,
    last_read: Instant,
    reason: Option<String>,
}

impl TapState {
    /// `cut` is the caller's; a child of it is what this connection cancels. A connection that ends
    /// by itself after it has been silent for `silence` ended because of that.
    pub(super) fn new(cut: CancellationToken, silence: Option<Duration>) -> Self {
        Self {
            cut: cut.child_token(),
            ended: CancellationToken::new(),
            silence,
            facts: Mutex::new(Facts {
                head: Vec::new(),
                last_read: Instant::now(),
                reason: None,
            }),
        }
    }

    pub(super) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// The HTTP/2 side has finished with the stream.
    pub(super) fn end(&self, error: Option<hyper::Error>) {
        let idle = self.facts().last_read.elapsed();
        let silent = self.silence.is_some_and(|silence| idle >= silence);
        self.set_reason(|| match error {
            _ if silent => SILENT.to_owned(),
            Some(error) => chain(&error),
            None => "the connection was closed".to_owned(),
        });
        self.cut.cancel();
        self.ended.cancel();
    }

    pub(super) fn was_silent(&self) -> bool {
        self.facts().reason.as_deref() == Some(SILENT)
    }

    pub(super) fn reason(&self) -> String {
        self.facts().reason.clone().unwrap_or_default()
    }

    pub(super) fn peer_kind(&self) -> PeerKind {
        let facts = self.facts();
        let head = facts.head.as_slice();
        if head.len() < HEAD_BYTES {
            return PeerKind::Silent;
        }
        // The type of the first frame; its length is far below 2^16.
        if head[0] == 0 && head[3] == 4 {
            PeerKind::Http2
        } else if head.starts_with(b"HTTP/1") {
            PeerKind::Http1
        } else if head.starts_with(b"PRI * HTT") {
            PeerKind::Echo
        } else {
            PeerKind::Other
        }
    }

    /// The first reason is the true one.
    fn set_reason(&self, reason: impl FnOnce() -> String) {
        self.facts().reason.get_or_insert_with(reason);
    }

    fn note_read(&self, bytes: &[u8]) {
        let mut facts = self.facts();
        facts.last_read = Instant::now();
        let missing = HEAD_BYTES - facts.head.len();
        facts.head.extend(bytes.iter().take(missing));
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> String {
    "the other side closed the connection".to_owned()
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The stream itself. Dropping it ends the state.
pub(super) struct Tap<S> {
    stream: S,
    state: Arc<TapState>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    heard: bool,
}

impl<S> Tap<S> {
    pub(super) fn new(stream: S, state: Arc<TapState>) -> Self {
        let cut = Box::pin(state.cut.clone().cancelled_owned());
        Self {
            stream,
            state,
            cut,
            heard: false,
        }
    }

    /// A peer that has closed may have said before what it is, but HTTP/2 gives up on the first
    /// failed write, before it reads. So until the first byte came, bytes that nobody takes are
    /// dropped; reading then tells the end.
    fn unheard(&self, result: io::Result<usize>, length: usize) -> io::Result<usize> {
        result.or_else(|error| if self.heard { Err(error) } else { Ok(length) })
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                let reason = || "the gateway ended the connection".to_owned();
                self.state.set_reason(reason);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

impl<S> Drop for Tap<S> {
    fn drop(&mut self) {
        self.state.ended.cancel();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.poll_cut(cx)?;
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        let read = &buffer.filled()[before..];
        match &result {
            // With unread bytes of ours an end is a reset.
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
                this.state.set_reason(|| error.to_string());
            }
            Err(_) => this.state.set_reason(closed),
            Ok(()) if read.is_empty() => this.state.set_reason(closed),
            Ok(()) => {
                this.heard = true;
                this.state.note_read(read);
            }
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(self.unheard(result, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        let length = slices.iter().map(|slice| slice.len()).sum();
        Poll::Ready(self.unheard(result, length))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
