//! Where we are in an execution's output: every byte is passed on once, whatever is sent again.
//! Pure.

use bytes::{Buf as _, Bytes};
use cofferdam_proto::gateway::v1::{Gap, Output, OutputStream};

/// Bytes for one of our outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) stream: Stream,
    /// Of the first byte, in the whole output.
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Default)]
pub(crate) struct Cursor {
    next_offset: u64,
    missing_bytes: u64,
}

impl Cursor {
    pub(crate) fn at(next_offset: u64) -> Self {
        Self {
            next_offset,
            missing_bytes: 0,
        }
    }

    /// The first byte that has not come yet.
    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// How many bytes were skipped since this was asked last.
    pub(crate) fn take_missing(&mut self) -> u64 {
        std::mem::take(&mut self.missing_bytes)
    }

    /// What of an output event is new.
    pub(crate) fn output(&mut self, output: Output) -> Option<Chunk> {
        let stream = match output.stream() {
            OutputStream::Stderr => Stream::Stderr,
            _ => Stream::Stdout,
        };
        let mut data = output.data;
        let mut offset = output.offset;
        if offset > self.next_offset {
            self.missing_bytes += offset - self.next_offset;
        } else {
            let seen = (self.next_offset - offset).min(data.len() as u64);
            data.advance(seen as usize);
            offset += seen;
        }
        if data.is_empty() {
            return None;
        }
        self.next_offset = offset + data.len() as u64;
        Some(Chunk {
            stream,
            offset,
            data,
        })
    }

    pub(crate) fn gap(&mut self, gap: &Gap) {
        let end = gap.offset.saturating_add(gap.length);
        if end > self.next_offset {
            self.missing_bytes += end - self.next_offset;
            self.next_offset = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(offset: u64, data: &'static str) -> Output {
        Output {
            offset,
            stream: OutputStream::Stdout as i32,
            data: Bytes::from_static(data.as_bytes()),
        }
    }

    fn text(chunk: Option<Chunk>) -> Option<String> {
        chunk.map(|chunk| String::from_utf8_lossy(&chunk.data).into_owned())
    }

    #[test]
    fn what_is_sent_again_is_dropped() {
        let mut cursor = Cursor::default();
        assert_eq!(text(cursor.output(output(0, "abc"))), Some("abc".into()));
        assert_eq!(text(cursor.output(output(1, "bc"))), None);
        assert_eq!(text(cursor.output(output(2, "cdef"))), Some("def".into()));
        assert_eq!(cursor.next_offset(), 6);
        assert_eq!(cursor.take_missing(), 0);
    }

    #[test]
    fn what_is_missing_is_counted_once() {
        let mut cursor = Cursor::at(4);
        cursor.gap(&Gap {
            offset: 2,
            length: 6,
        });
        assert_eq!(text(cursor.output(output(8, "x"))), Some("x".into()));
        assert_eq!(text(cursor.output(output(12, "y"))), Some("y".into()));
        assert_eq!(cursor.take_missing(), 4 + 3);
        assert_eq!(cursor.take_missing(), 0);
    }
}
