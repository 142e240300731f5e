//! What waits to be written to a process's stdin. Offsets make resending harmless.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};
use thiserror::Error;

/// How much may wait. A caller that keeps to this never has its other requests wait behind stdin.
pub(crate) const STDIN_WAITING_BYTES_MAX: u64 = 256 * 1024;

/// Why stdin was not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum StdinError {
    #[error("stdin.offset is {offset}, but only the bytes before {received} have come")]
    Gap { offset: u64, received: u64 },
    #[error("stdin ended at {end}; nothing can follow")]
    AfterEnd { end: u64 },
    #[error("the process was started without stdin")]
    Absent,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct StdinQueue {
    waiting: VecDeque<Bytes>,
    received: u64,
    taken: u64,
    end: Option<u64>,
    absent: bool,
    closed: bool,
    line_is_open: bool,
}

impl StdinQueue {
    /// For a process that has no stdin.
    pub(crate) fn absent() -> Self {
        Self {
            absent: true,
            closed: true,
            ..Self::default()
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.received - self.taken < STDIN_WAITING_BYTES_MAX
    }

    /// Takes data at its place; what is known already is skipped.
    pub(crate) fn push(&mut self, offset: u64, mut data: Bytes) -> Result<(), StdinError> {
        if self.absent {
            return Err(StdinError::Absent);
        }
        if offset > self.received {
            return Err(StdinError::Gap {
                offset,
                received: self.received,
            });
        }
        let known = (self.received - offset).min(data.len() as u64);
        data.advance(known as usize);
        if data.is_empty() {
            return Ok(());
        }
        if let Some(end) = self.end {
            return Err(StdinError::AfterEnd { end });
        }
        self.received += data.len() as u64;
        if self.closed {
            self.taken = self.received;
        } else {
            self.waiting.push_back(data);
        }
        Ok(())
    }

    /// The whole of stdin has come.
    pub(crate) fn end(&mut self, offset: u64) -> Result<(), StdinError> {
        match self.end {
            _ if self.absent => return Err(StdinError::Absent),
            Some(end) if end == offset => return Ok(()),
            Some(end) => return Err(StdinError::AfterEnd { end }),
            None if offset != self.received => {
                return Err(StdinError::Gap {
                    offset,
                    received: self.received,
                });
            }
            None => self.end = Some(offset),
        }
        Ok(())
    }

    /// What to write next.
    pub(crate) fn front(&self) -> Option<&Bytes> {
        self.waiting.front()
    }

    /// Everything has been written, and nothing more will come.
    pub(crate) fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.end.is_some()
    }

    /// So much of the front has been written.
    pub(crate) fn take(&mut self, count: usize) {
        let Some(front) = self.waiting.front_mut() else {
            return;
        };
        self.line_is_open = front
            .get(count.wrapping_sub(1))
            .is_some_and(|&byte| byte != b'\n');
        front.advance(count);
        self.taken += count as u64;
        if front.is_empty() {
            self.waiting.pop_front();
        }
    }

    /// The process reads no more: what waits and what will come counts as taken.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.waiting.clear();
        self.taken = self.received;
    }

    /// Bytes before this were written, or dropped because stdin was closed.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.absent
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The last byte written did not end a line.
    pub(crate) fn line_is_open(&self) -> bool {
        self.line_is_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(queue: &StdinQueue) -> Vec<u8> {
        queue.waiting.iter().flatten().copied().collect()
    }

    #[test]
    fn resent_bytes_are_taken_once() {
        let mut queue = StdinQueue::default();
        queue
            .push(0, Bytes::from_static(b"hello "))
            .expect("in place");
        queue.push(0, Bytes::from_static(b"hello ")).expect("known");
        queue
            .push(3, Bytes::from_static(b"lo world"))
            .expect("overlapping");
        assert_eq!(waiting(&queue), b"hello world");
    }

    #[test]
    fn a_gap_is_refused() {
        let mut queue = StdinQueue::default();
        let gap = queue.push(1, Bytes::from_static(b"x"));
        assert_eq!(
            gap,
            Err(StdinError::Gap {
                offset: 1,
                received: 0
            })
        );
        assert_eq!(
            queue.end(1),
            Err(StdinError::Gap {
                offset: 1,
                received: 0
            })
        );
    }

    #[test]
    fn the_end_may_be_repeated_but_not_moved() {
        let mut queue = StdinQueue::default();
        queue.push(0, Bytes::from_static(b"abc")).expect("in place");
        queue.end(3).expect("all came");
        queue.end(3).expect("repeated");
        queue.push(1, Bytes::from_static(b"bc")).expect("known");
        assert_eq!(queue.end(4), Err(StdinError::AfterEnd { end: 3 }));
        let more = queue.push(3, Bytes::from_static(b"d"));
        assert_eq!(more, Err(StdinError::AfterEnd { end: 3 }));
        assert!(!queue.is_finished());
        queue.take(3);
        assert!(queue.is_finished());
    }

    #[test]
    fn after_the_process_closed_it_everything_counts_as_taken() {
        let mut queue = StdinQueue::default();
        queue.push(0, Bytes::from_static(b"abc")).expect("in place");
        queue.close();
        queue.push(3, Bytes::from_static(b"def")).expect("dropped");
        assert_eq!(queue.taken(), 6);
        assert!(queue.has_room());
    }

    #[test]
    fn an_unfinished_line_is_remembered() {
        let mut queue = StdinQueue::default();
        queue
            .push(0, Bytes::from_static(b"ab\ncd"))
            .expect("in place");
        queue.take(3);
        assert!(!queue.line_is_open());
        queue.take(1);
        assert!(queue.line_is_open());
    }
}
