//! Reading what a process writes: never blocking, without copying what is large.
#![allow(unsafe_code, reason = "reads into memory that is not initialised yet")]

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use crate::readiness;
use bytes::Bytes;
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use cofferdam_proto::PIECE_BYTES_MAX;
use cofferdam_proto::supervisor::v1::OutputStream;

/// One read takes at most this much.
const READ_BYTES: usize = PIECE_BYTES_MAX;
/// Up to this size a copy is cheaper than a buffer of its own.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// A pipe that was found full once gets this size. Not all of them from the start: an unprivileged
/// user may have only 64 MiB of pipes on the whole machine before new ones shrink to a page.
const BULK_PIPE_BYTES: usize = 1024 * 1024;
const DEFAULT_PIPE_BYTES: usize = 64 * 1024;

thread_local! {
    /// One buffer for all processes: reads happen on one thread, and none waits.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A pipe or a terminal; shared, since a terminal is also written to and resized.
pub(super) type SharedFd = Arc<OwnedFd>;

/// One stream of a process.
#[derive(Debug)]
pub(super) struct Source {
    fd: AsyncFd<SharedFd>,
    pub(super) stream: OutputStream,
    is_terminal: bool,
    enlarged: bool,
}

/// What a read gave.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    Data(Bytes),
    /// Every writer has closed it.
    End,
}

impl Source {
    pub(super) fn new(fd: SharedFd, stream: OutputStream, is_terminal: bool) -> io::Result<Self> {
        let fd = readiness::watch(fd, Interest::READABLE)?;
        Ok(Self {
            fd,
            stream,
            is_terminal,
            enlarged: is_terminal,
        })
    }

    /// Waits for data, of which it takes at most `room_bytes`. Cancelled, it has taken nothing.
    pub(super) async fn read(&mut self, room_bytes: usize) -> ReadOutcome {
        loop {
            let Ok(mut ready) = self.fd.readable().await else {
                return ReadOutcome::End;
            };
            match ready.try_io(|fd| read_now(fd.get_ref(), room_bytes, self.is_terminal)) {
                Ok(Ok(data)) if data.is_empty() => return ReadOutcome::End,
                Ok(Ok(data)) => {
                    if !self.enlarged && data.len() >= DEFAULT_PIPE_BYTES {
                        self.enlarged = true;
                        // Refused where the user has too many; then it stays as it is.
                        let _ = fcntl_setpipe_size(self.fd.get_ref(), BULK_PIPE_BYTES);
                    }
                    return ReadOutcome::Data(data);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return ReadOutcome::End,
                Err(_would_block) => {}
            }
        }
    }

    /// Takes what is there, without waiting. `None`: nothing, at present.
    pub(super) fn read_now(&mut self, room_bytes: usize) -> Option<ReadOutcome> {
        match read_now(self.fd.get_ref(), room_bytes, self.is_terminal) {
            Ok(data) if data.is_empty() => Some(ReadOutcome::End),
            Ok(data) => Some(ReadOutcome::Data(data)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(ReadOutcome::End),
        }
    }

    /// How many bytes wait. What a process has written before its end is among them.
    pub(super) fn waiting_bytes(&self) -> u64 {
        if self.is_terminal {
            // The kernel does not tell how much is on its way through a terminal's buffers; it is
            // less than this.
            return 2 * DEFAULT_PIPE_BYTES as u64;
        }
        rustix::io::ioctl_fionread(self.fd.get_ref()).unwrap_or(0)
    }
}

/// Reads without waiting. Empty at the end of the stream.
fn read_now(fd: &SharedFd, room_bytes: usize, is_terminal: bool) -> io::Result<Bytes> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.capacity() < READ_BYTES {
            buffer.reserve_exact(READ_BYTES);
        }
        debug_assert!(buffer.is_empty() && room_bytes > 0);
        let limit = room_bytes.min(READ_BYTES);
        let count = match rustix::io::read(fd.as_fd(), &mut buffer.spare_capacity_mut()[..limit]) {
            Ok((initialised, _)) => initialised.len(),
            // Nobody holds the terminal's other side any more.
            Err(Errno::IO) if is_terminal => 0,
            Err(error) => return Err(error.into()),
        };
        if count <= COPY_BYTES_MAX {
            // SAFETY: the kernel has initialised so many bytes from the buffer's start.
            let data = unsafe { std::slice::from_raw_parts(buffer.as_ptr(), count) };
            return Ok(Bytes::copy_from_slice(data));
        }
        let mut data = std::mem::take(buffer);
        // SAFETY: as above.
        unsafe { data.set_len(count) };
        Ok(Bytes::from(data))
    })
}

/// The writing half: stdin's pipe or the terminal.
#[derive(Debug)]
pub(super) struct Sink(AsyncFd<OwnedFd>);

impl Sink {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(readiness::watch(fd, Interest::WRITABLE)?))
    }

    /// Writes some of the data. Cancelled, it has written nothing.
    pub(super) async fn write(&self, data: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), data)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}
