//! What the caller has sent for stdin and the process has not taken yet.
//!
//! It is kept until the supervisor says that it was taken, so that a cut session can be continued
//! without losing or doubling a byte. Its size is bounded: a caller that is ahead waits.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// How much may be on its way between the caller and the process.
pub(super) const STDIN_BUFFER_BYTES_MAX: u64 = 1024 * 1024;

/// A caller's stdin has a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} bytes of stdin from offset {expected} on never came", got - expected)]
pub(super) struct StdinGap {
    expected: u64,
    /// More than is expected.
    got: u64,
}

/// How far stdin has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StdinProgress {
    /// The process has taken everything before this; a stream that continues a cut one goes on here.
    pub taken: u64,
    /// What came before this need not come again.
    pub received: u64,
}

#[derive(Debug, Default)]
pub(super) struct StdinBuffer {
    chunks: VecDeque<Bytes>,
    /// Offset of the first byte in `chunks`: everything before was taken.
    taken: u64,
    /// Offset of the next byte to be sent on the current stream.
    sent: u64,
    /// Offset after the last byte received.
    end: u64,
    eof: Option<u64>,
    eof_sent: bool,
    closed: bool,
}

impl StdinBuffer {
    pub(super) fn has_room(&self) -> bool {
        self.end - self.taken < STDIN_BUFFER_BYTES_MAX
    }

    /// What comes twice is taken once, and what comes after the end not at all.
    pub(super) fn push(&mut self, offset: u64, mut data: Bytes) -> Result<(), StdinGap> {
        if self.closed || self.eof.is_some() {
            return Ok(());
        }
        self.reaches(offset)?;
        let known = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        data.advance(known.min(data.len()));
        if !data.is_empty() {
            self.end += data.len() as u64;
            self.chunks.push_back(data);
        }
        Ok(())
    }

    /// Never the end of what has a hole: the process would take a part for the whole.
    pub(super) fn finish(&mut self, offset: u64) -> Result<(), StdinGap> {
        if !self.closed && self.eof.is_none() {
            self.reaches(offset)?;
        }
        self.eof.get_or_insert(self.end);
        Ok(())
    }

    fn reaches(&self, offset: u64) -> Result<(), StdinGap> {
        match offset > self.end {
            true => Err(StdinGap {
                expected: self.end,
                got: offset,
            }),
            false => Ok(()),
        }
    }

    /// The process has taken everything before `offset`; `closed`: and wants no more.
    pub(super) fn acknowledge(&mut self, offset: u64, closed: bool) {
        if closed {
            self.closed = true;
            self.chunks.clear();
            self.taken = self.end;
            self.sent = self.end;
            return;
        }
        while self.taken < offset {
            let Some(first) = self.chunks.front_mut() else {
                break;
            };
            let step = (offset - self.taken).min(first.len() as u64);
            first.advance(usize::try_from(step).unwrap_or(usize::MAX));
            self.taken += step;
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
        self.sent = self.sent.max(self.taken);
    }

    /// A new stream: send again from what the process says it has taken.
    pub(super) fn rewind(&mut self, taken: u64) {
        self.acknowledge(taken, false);
        if taken > self.end {
            // An earlier life of the gateway has sent it.
            (self.taken, self.end) = (taken, taken);
        }
        self.sent = self.taken;
        self.eof_sent = false;
    }

    /// The next piece to send, with its offset.
    pub(super) fn next(&mut self) -> Option<(u64, Bytes)> {
        if self.closed {
            return None;
        }
        let mut start = self.taken;
        for chunk in &self.chunks {
            let end = start + chunk.len() as u64;
            if self.sent < end {
                let skip = usize::try_from(self.sent - start).unwrap_or(usize::MAX);
                let piece = (self.sent, chunk.slice(skip..));
                self.sent = end;
                return Some(piece);
            }
            start = end;
        }
        None
    }

    /// The end of stdin, once, after its last byte was sent.
    pub(super) fn take_eof(&mut self) -> Option<u64> {
        let eof = self.eof.filter(|eof| self.sent >= *eof && !self.eof_sent)?;
        self.eof_sent = true;
        Some(eof)
    }

    pub(super) fn has_work(&self) -> bool {
        let eof_due = self.eof.is_some_and(|eof| self.sent >= eof) && !self.eof_sent;
        (!self.closed && self.sent < self.end) || eof_due
    }

    pub(super) fn progress(&self) -> StdinProgress {
        StdinProgress {
            taken: self.taken,
            received: self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(buffer: &mut StdinBuffer) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((_, piece)) = buffer.next() {
            all.extend_from_slice(&piece);
        }
        all
    }

    #[test]
    fn a_new_stream_gets_exactly_what_was_not_taken() {
        let mut buffer = StdinBuffer::default();
        buffer.push(0, Bytes::from_static(b"hello ")).unwrap();
        buffer.push(6, Bytes::from_static(b"world")).unwrap();
        assert_eq!(drain(&mut buffer), b"hello world");
        buffer.rewind(4);
        assert_eq!(drain(&mut buffer), b"o world");
    }

    #[test]
    fn what_comes_twice_is_taken_once_and_a_hole_is_refused() {
        let mut buffer = StdinBuffer::default();
        buffer.push(0, Bytes::from_static(b"abc")).unwrap();
        buffer.push(1, Bytes::from_static(b"bcd")).unwrap();
        assert_eq!(drain(&mut buffer), b"abcd");
        assert!(buffer.push(9, Bytes::from_static(b"x")).is_err());
    }

    #[test]
    fn an_end_beyond_what_came_is_a_hole_and_nothing_follows_an_end() {
        let mut buffer = StdinBuffer::default();
        buffer.push(0, Bytes::from_static(b"abc")).unwrap();
        let gap = buffer.finish(5).unwrap_err();
        assert_eq!(
            gap.to_string(),
            "2 bytes of stdin from offset 3 on never came"
        );
        buffer.finish(3).unwrap();
        // Somebody else who has attached, and does not know.
        buffer.push(9, Bytes::from_static(b"late")).unwrap();
        buffer.finish(13).unwrap();
        assert_eq!(drain(&mut buffer), b"abc");
        assert_eq!(buffer.take_eof(), Some(3));
    }

    #[test]
    fn the_end_comes_after_the_last_byte_and_once_per_stream() {
        let mut buffer = StdinBuffer::default();
        buffer.push(0, Bytes::from_static(b"ab")).unwrap();
        assert!(buffer.finish(3).is_err(), "an end that is not the end");
        buffer.finish(2).unwrap();
        assert_eq!(buffer.take_eof(), None);
        drain(&mut buffer);
        assert_eq!(buffer.take_eof(), Some(2));
        assert_eq!(buffer.take_eof(), None);
        buffer.rewind(2);
        assert_eq!(buffer.take_eof(), Some(2));
    }

    #[test]
    fn room_comes_back_when_bytes_are_taken() {
        let mut buffer = StdinBuffer::default();
        let big = Bytes::from(vec![0; STDIN_BUFFER_BYTES_MAX as usize]);
        buffer.push(0, big).unwrap();
        assert!(!buffer.has_room());
        drain(&mut buffer);
        buffer.acknowledge(10, false);
        assert!(buffer.has_room());
    }
}
