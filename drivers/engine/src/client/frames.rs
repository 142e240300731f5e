//! An engine's framing of stdout and stderr on one connection.
//!
//! ```text
//!   kind (0 stdin, 1 stdout, 2 stderr) · 0 0 0 · length (u32, big-endian) · bytes
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HEADER_BYTES: usize = 8;
const STDERR: u8 = 2;

/// Where in the framing a reader is. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many bytes of this header have come.
    Header([u8; HEADER_BYTES], usize),
    /// So many bytes of this kind are to come.
    Payload(u8, usize),
}

impl Place {
    const START: Self = Self::Header([0; HEADER_BYTES], 0);

    /// After a whole header.
    fn after(header: [u8; HEADER_BYTES]) -> io::Result<Self> {
        let [kind, 0, 0, 0, a, b, c, d] = header else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the engine's stream is not in frames",
            ));
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        Ok(match length {
            0 => Self::START,
            length => Self::Payload(kind, length as usize),
        })
    }
}

/// Everything that is in the frames, whatever its kind.
#[derive(Debug)]
pub(crate) struct Unframed {
    place: Place,
}

impl Unframed {
    pub(crate) fn new() -> Self {
        Self {
            place: Place::START,
        }
    }

    /// The payload in the next piece of the stream.
    pub(crate) fn take(&mut self, mut piece: &[u8]) -> io::Result<Bytes> {
        let mut payload = BytesMut::new();
        while !piece.is_empty() {
            match &mut self.place {
                Place::Header(header, have) => {
                    let count = piece.len().min(HEADER_BYTES - *have);
                    header[*have..*have + count].copy_from_slice(&piece[..count]);
                    *have += count;
                    piece = &piece[count..];
                    if *have == HEADER_BYTES {
                        self.place = Place::after(*header)?;
                    }
                }
                Place::Payload(_, left) => {
                    let count = piece.len().min(*left);
                    payload.extend_from_slice(&piece[..count]);
                    *left -= count;
                    piece = &piece[count..];
                    if *left == 0 {
                        self.place = Place::START;
                    }
                }
            }
        }
        Ok(payload.freeze())
    }
}

/// An attached connection as one byte stream: stdin goes out as it is, stdout comes back out of its
/// frames, stderr goes elsewhere.
#[derive(Debug)]
pub(crate) struct StdioStream<S, E> {
    inner: S,
    place: Place,
    stderr: E,
}

impl<S, E> StdioStream<S, E> {
    pub(crate) fn new(inner: S, stderr: E) -> Self {
        Self {
            inner,
            place: Place::START,
            stderr,
        }
    }
}

impl<S, E> AsyncRead for StdioStream<S, E>
where
    S: AsyncRead + Unpin,
    E: FnMut(&[u8]) + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.place {
                Place::Header(header, have) => {
                    let mut rest = ReadBuf::new(&mut header[*have..]);
                    ready!(Pin::new(&mut this.inner).poll_read(context, &mut rest))?;
                    let count = rest.filled().len();
                    if count == 0 {
                        return Poll::Ready(match *have {
                            0 => Ok(()),
                            _ => Err(io::ErrorKind::UnexpectedEof.into()),
                        });
                    }
                    *have += count;
                    if *have == HEADER_BYTES {
                        this.place = Place::after(*header)?;
                    }
                }
                Place::Payload(STDERR, left) => {
                    let mut piece = [0; 1024];
                    let length = piece.len().min(*left);
                    let mut rest = ReadBuf::new(&mut piece[..length]);
                    ready!(Pin::new(&mut this.inner).poll_read(context, &mut rest))?;
                    let count = rest.filled().len();
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    (this.stderr)(rest.filled());
                    advance(&mut this.place, count);
                }
                Place::Payload(_, left) => {
                    let length = buffer.remaining().min(*left);
                    if length == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    let mut rest = ReadBuf::new(buffer.initialize_unfilled_to(length));
                    ready!(Pin::new(&mut this.inner).poll_read(context, &mut rest))?;
                    let count = rest.filled().len();
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    buffer.advance(count);
                    advance(&mut this.place, count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

fn advance(place: &mut Place, count: usize) {
    if let Place::Payload(_, left) = place {
        *left -= count;
        if *left == 0 {
            *place = Place::START;
        }
    }
}

impl<S: AsyncWrite + Unpin, E: Unpin> AsyncWrite for StdioStream<S, E> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame
    }

    proptest! {
        #[test]
        fn payload_comes_whole_however_the_stream_was_cut(
            frames in proptest::collection::vec((1_u8..3, proptest::collection::vec(any::<u8>(), 0..50)), 0..10),
            cut in 1_usize..20,
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|(kind, payload)| frame(*kind, payload)).collect();
            let mut unframed = Unframed::new();
            let mut all = Vec::new();
            for piece in stream.chunks(cut) {
                all.extend(unframed.take(piece).unwrap());
            }
            let wanted: Vec<u8> = frames.into_iter().flat_map(|(_, payload)| payload).collect();
            prop_assert_eq!(all, wanted);
        }
    }

    #[tokio::test]
    async fn stdout_is_the_stream_and_stderr_is_not() {
        let bytes = [
            frame(1, b"one"),
            frame(2, b"noise"),
            frame(1, b""),
            frame(1, b"two"),
        ]
        .concat();
        let mut noise = Vec::new();
        let mut stream =
            StdioStream::new(&bytes[..], |piece: &[u8]| noise.extend_from_slice(piece));
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "onetwo");
        assert_eq!(noise, b"noise");
    }

    #[tokio::test]
    async fn what_is_cut_or_no_frame_is_an_error() {
        let cut = &frame(1, b"one")[..9];
        let mut stream = StdioStream::new(cut, |_: &[u8]| {});
        assert!(stream.read_to_end(&mut Vec::new()).await.is_err());
        assert!(Unframed::new().take(b"not a frame at all").is_err());
    }
}
