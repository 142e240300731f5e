//! Stdin on its way to the command: what is kept until it was taken, so that it can be sent again
//! after a cut. Pure but for the reading thread.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use cofferdam_proto::PIECE_BYTES_MAX;
use cofferdam_proto::gateway::v1::execute_request::Request;
use cofferdam_proto::gateway::v1::{Stdin, StdinEof};
use tokio::sync::mpsc;

/// What may be on its way and not yet taken. A command that does not read stops us here.
const WINDOW_BYTES: usize = 4 << 20;
/// One message: large enough for throughput, small enough for a terminal's echo.
const CHUNK_BYTES: usize = PIECE_BYTES_MAX;
/// Chunks between the reading thread and the stream.
const QUEUE_CHUNKS: usize = 8;

/// Sent and unsent stdin, by offset.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Offset of the first byte that is kept.
    base: u64,
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    /// Offset of the next byte to send.
    unsent: u64,
    /// No more comes after what is kept.
    is_closed: bool,
    eof_sent: bool,
}

impl Window {
    fn end(&self) -> u64 {
        self.base + self.kept_bytes as u64
    }

    pub(crate) fn has_room(&self) -> bool {
        !self.is_closed && self.kept_bytes < WINDOW_BYTES
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.kept_bytes += data.len();
            self.kept.push_back(data);
        }
    }

    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// The command has taken everything before this offset.
    pub(crate) fn taken(&mut self, offset: u64) {
        while let Some(first) = self.kept.front_mut() {
            let taken = offset.saturating_sub(self.base).min(first.len() as u64);
            if taken == 0 {
                break;
            }
            self.base += taken;
            self.kept_bytes -= taken as usize;
            if taken as usize == first.len() {
                self.kept.pop_front();
            } else {
                let _ = first.split_to(taken as usize);
            }
        }
        self.unsent = self.unsent.max(self.base);
    }

    /// The first stream: what others have sent before is not ours to send.
    pub(crate) fn begin_at(&mut self, offset: u64) {
        (self.base, self.unsent) = (offset, offset);
    }

    /// A new stream wants stdin from this offset on. False if that is not kept any more.
    pub(crate) fn resume_at(&mut self, offset: u64) -> bool {
        self.taken(offset);
        self.unsent = offset.max(self.base);
        self.eof_sent = false;
        offset >= self.base
    }

    pub(crate) fn wants_to_send(&self) -> bool {
        self.unsent < self.end() || (self.is_closed && !self.eof_sent)
    }

    /// The next message, if there is one.
    pub(crate) fn next_request(&mut self) -> Option<Request> {
        let mut skip = self.unsent - self.base;
        for chunk in &self.kept {
            if skip < chunk.len() as u64 {
                let data = chunk.slice(skip as usize..);
                let offset = self.unsent;
                self.unsent += data.len() as u64;
                return Some(Request::Stdin(Stdin { offset, data }));
            }
            skip -= chunk.len() as u64;
        }
        if self.is_closed && !self.eof_sent {
            self.eof_sent = true;
            return Some(Request::StdinEof(StdinEof { offset: self.end() }));
        }
        None
    }
}

/// Reads our stdin on a thread of its own: a blocking read cannot be taken back, and setting it
/// non-blocking would do so for everybody who shares it.
pub(crate) fn read() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(QUEUE_CHUNKS);
    std::thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    let data = Bytes::copy_from_slice(&buffer[..length]);
                    if sender.blocking_send(data).is_err() {
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => wait_until_readable(),
                // A terminal that went away, a closed descriptor: nothing more comes.
                Err(_) => return,
            }
        }
    });
    receiver
}

/// For a stdin that somebody else has set non-blocking.
fn wait_until_readable() {
    use rustix::event::{PollFd, PollFlags, poll};
    let stdin = rustix::stdio::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    // An interrupted wait is a wait: the caller reads again.
    let _: io::Result<usize> = poll(&mut fds, None).map_err(io::Error::from);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(window: &mut Window) -> Vec<(u64, String)> {
        std::iter::from_fn(|| window.next_request())
            .map(|request| match request {
                Request::Stdin(stdin) => (
                    stdin.offset,
                    String::from_utf8_lossy(&stdin.data).into_owned(),
                ),
                Request::StdinEof(eof) => (eof.offset, "EOF".to_owned()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn after_a_cut_exactly_what_was_not_taken_is_sent_again() {
        let mut window = Window::default();
        window.push(Bytes::from_static(b"hello "));
        window.push(Bytes::from_static(b"world"));
        window.close();
        let all = [
            (0, "hello ".to_owned()),
            (6, "world".to_owned()),
            (11, "EOF".to_owned()),
        ];
        assert_eq!(sent(&mut window), all);
        window.taken(2);
        assert!(window.resume_at(8));
        assert_eq!(
            sent(&mut window),
            [(8, "rld".to_owned()), (11, "EOF".to_owned())]
        );
        assert!(!window.wants_to_send());
    }

    #[test]
    fn what_was_taken_cannot_be_asked_for_again() {
        let mut window = Window::default();
        window.push(Bytes::from_static(b"hello"));
        window.taken(5);
        assert!(!window.resume_at(3));
        assert!(window.resume_at(5));
    }

    #[test]
    fn an_attach_starts_where_the_command_is() {
        let mut window = Window::default();
        window.begin_at(100);
        window.push(Bytes::from_static(b"x"));
        assert_eq!(sent(&mut window), [(100, "x".to_owned())]);
    }

    #[test]
    fn a_command_that_does_not_read_stops_us() {
        let mut window = Window::default();
        window.push(Bytes::from(vec![0; WINDOW_BYTES]));
        assert!(!window.has_room());
        window.taken(1);
        assert!(window.has_room());
    }
}
