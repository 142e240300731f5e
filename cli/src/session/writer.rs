//! Writes a command's output to our stdout and stderr, in order, from a thread of its own: a slow
//! reader holds up the output, and nothing else.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use bytes::{Buf as _, Bytes};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use super::cursor::{Chunk, Stream};

/// Chunks between the stream and the thread; with frames of 128 KiB some 4 MiB.
const QUEUE_CHUNKS: usize = 32;
/// What one `writev` takes at most.
const PIECES_MAX: usize = 32;
/// Fewer switches between us and whoever reads our pipe.
const PIPE_BYTES: usize = 1 << 20;

/// Two halves, so that one can wait for room and for a failure at the same time.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) queue: mpsc::Sender<Chunk>,
    pub(super) result: Written,
    /// What the thread works with, until there is one: many commands write nothing.
    unbegun: Option<Unbegun>,
}

type Unbegun = (mpsc::Receiver<Chunk>, oneshot::Sender<io::Result<()>>);

/// How the writing went, once it has ended. It can be asked for again.
#[derive(Debug)]
pub(super) struct Written {
    result: oneshot::Receiver<io::Result<()>>,
    /// Of an earlier question.
    known: Option<io::Result<()>>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let (queue, chunks) = mpsc::channel(QUEUE_CHUNKS);
        let (done, result) = oneshot::channel();
        Self {
            queue,
            result: Written {
                result,
                known: None,
            },
            unbegun: Some((chunks, done)),
        }
    }

    /// To be called before anything is queued; more than once does no harm.
    pub(super) fn begin(&mut self) {
        let Some((chunks, done)) = self.unbegun.take() else {
            return;
        };
        // Works for pipes only, and is not needed.
        let _ = rustix::pipe::fcntl_setpipe_size(rustix::stdio::stdout(), PIPE_BYTES);
        std::thread::spawn(move || {
            // The receiver may be gone: then nobody waits for the result.
            let _ = done.send(write_all(chunks));
        });
    }

    /// Waits for room and passes a chunk on. For callers that have nothing else to do meanwhile.
    pub(crate) async fn write(&mut self, chunk: Chunk) -> io::Result<()> {
        self.begin();
        match self.queue.send(chunk).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.result.failed().await),
        }
    }

    /// Waits until everything is written. Where a write has failed, it fails with that again.
    pub(crate) async fn finish(mut self) -> io::Result<()> {
        if self.unbegun.is_some() {
            return Ok(());
        }
        drop(self.queue);
        self.result.ended().await
    }
}

impl Written {
    /// Returns when writing has failed, and with what.
    pub(super) async fn failed(&mut self) -> io::Error {
        match self.ended().await {
            Err(error) => error,
            // While the queue is open the thread ends for no other reason.
            Ok(()) => ended(),
        }
    }

    async fn ended(&mut self) -> io::Result<()> {
        let result = match self.known.take() {
            Some(known) => known,
            None => (&mut self.result).await.unwrap_or_else(|_| Err(ended())),
        };
        let known = self.known.insert(result);
        known.as_ref().map_err(same).copied()
    }
}

fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn ended() -> io::Error {
    io::Error::other("the writing thread has ended")
}

fn write_all(mut chunks: mpsc::Receiver<Chunk>) -> io::Result<()> {
    let mut run = VecDeque::with_capacity(PIECES_MAX);
    let mut next = chunks.blocking_recv();
    while let Some(first) = next.take() {
        let stream = first.stream;
        run.push_back(first.data);
        // Small chunks of the same stream that are there already go out in one call.
        while run.len() < PIECES_MAX {
            match chunks.try_recv() {
                Ok(chunk) if chunk.stream == stream => run.push_back(chunk.data),
                Ok(chunk) => {
                    next = Some(chunk);
                    break;
                }
                Err(_) => break,
            }
        }
        write_run(descriptor(stream), &mut run)?;
        if next.is_none() {
            next = chunks.blocking_recv();
        }
    }
    Ok(())
}

fn descriptor(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Stdout => rustix::stdio::stdout(),
        Stream::Stderr => rustix::stdio::stderr(),
    }
}

fn write_run(fd: BorrowedFd<'_>, run: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !run.is_empty() {
        let slices: Vec<IoSlice<'_>> = run.iter().map(|data| IoSlice::new(data)).collect();
        match rustix::io::writev(fd, &slices) {
            Ok(written) => consume(run, written),
            Err(Errno::INTR) => {}
            // Somebody who shares the descriptor has set it non-blocking.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
                let _: Result<usize, Errno> = poll(&mut fds, None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn consume(run: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = run.front_mut() {
        if written < first.len() {
            first.advance(written);
            return;
        }
        written -= first.len();
        run.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `logs` and `cp` ask at the end, after a chunk could not be passed on for the same reason.
    #[tokio::test]
    async fn a_failure_is_told_to_all_who_ask() {
        let (queue, chunks) = mpsc::channel(1);
        let (done, result) = oneshot::channel();
        let mut writer = Writer {
            queue,
            result: Written {
                result,
                known: None,
            },
            unbegun: None,
        };
        drop(chunks);
        done.send(Err(Errno::PIPE.into())).unwrap();
        let chunk = Chunk {
            stream: Stream::Stdout,
            offset: 0,
            data: Bytes::from_static(b"x"),
        };
        let error = writer.write(chunk).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let error = writer.result.failed().await;
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let error = writer.finish().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_was_written_leaves_the_run() {
        let mut run: VecDeque<Bytes> = [b"abc".as_slice(), b"", b"defg"]
            .map(Bytes::from_static)
            .into();
        consume(&mut run, 5);
        assert_eq!(run, [Bytes::from_static(b"fg")]);
        consume(&mut run, 2);
        assert!(run.is_empty());
    }
}
