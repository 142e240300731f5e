//! The newest output of an execution in memory, shared by its runner and its followers.
//!
//! A follower that keeps up gets the very buffers that came from the supervisor; one that does not
//! reads the files. One follower may be the *primary*: the runner does not read ahead of it by
//! more than the window, so that it gets every byte whatever the cap of the record is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::output::OutputStream;
use crate::state_dir::Trouble;

/// How far the runner may be ahead of a primary, and how much memory keeps for everyone else. It is
/// what a caller who does not read holds in memory, so it is no more than keeps a stream flowing.
pub(super) const WINDOW_BYTES: u64 = 256 * 1024;

/// Some output and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub offset: u64,
    pub stream: OutputStream,
    pub data: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

#[derive(Debug)]
struct Ring {
    chunks: VecDeque<Chunk>,
    bytes: u64,
}

impl Ring {
    /// A primary may be a whole window behind, plus the chunk that crossed the line. What it has
    /// read is not kept beyond the window: everyone else finds it in the files.
    fn is_too_long(&self, primary: Primary) -> bool {
        let is_read = |old: &Chunk| !primary.present || old.end() <= primary.consumed;
        self.bytes > 2 * WINDOW_BYTES
            || (self.bytes > WINDOW_BYTES && self.chunks.front().is_some_and(is_read))
    }
}

#[derive(Debug)]
pub(super) struct Live {
    ring: Mutex<Ring>,
    /// Offset after the last byte.
    end: watch::Sender<u64>,
    primary: watch::Sender<Primary>,
    /// What keeps the runner from storing.
    waiting: watch::Sender<Option<Trouble>>,
}

/// Who holds the runner up, and how far he has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Primary {
    pub(super) id: u64,
    pub(super) present: bool,
    pub(super) consumed: u64,
}

impl Live {
    pub(super) fn new(end: u64) -> Arc<Self> {
        Arc::new(Self {
            ring: Mutex::new(Ring {
                chunks: VecDeque::new(),
                bytes: 0,
            }),
            end: watch::Sender::new(end),
            primary: watch::Sender::new(Primary::default()),
            waiting: watch::Sender::new(None),
        })
    }

    /// Adds what the log has already taken.
    pub(super) fn push(&self, chunk: Chunk) {
        let end = chunk.end();
        let primary = *self.primary.borrow();
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.bytes += chunk.data.len() as u64;
            ring.chunks.push_back(chunk);
            while ring.is_too_long(primary) {
                let Some(old) = ring.chunks.pop_front() else {
                    break;
                };
                ring.bytes -= old.data.len() as u64;
            }
        }
        self.end.send_replace(end);
    }

    /// The chunk that holds `offset`, cut to begin there, if memory still has it.
    pub(super) fn get(&self, offset: u64) -> Option<Chunk> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.chunks.front()?;
        if offset < first.offset {
            return None;
        }
        let at = ring.chunks.partition_point(|chunk| chunk.end() <= offset);
        let chunk = ring.chunks.get(at)?;
        let skip = usize::try_from(offset - chunk.offset).ok()?;
        Some(Chunk {
            offset,
            stream: chunk.stream,
            data: chunk.data.slice(skip..),
        })
    }

    pub(super) fn end(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    pub(super) fn primary(&self) -> watch::Receiver<Primary> {
        self.primary.subscribe()
    }

    pub(super) fn set_waiting(&self, trouble: Option<Trouble>) {
        self.waiting.send_replace(trouble);
    }

    pub(super) fn waiting(&self) -> watch::Receiver<Option<Trouble>> {
        self.waiting.subscribe()
    }

    /// Becomes the primary; an earlier one is none any more.
    pub(super) fn become_primary(self: &Arc<Self>, consumed: u64) -> PrimaryGuard {
        let mut id = 0;
        self.primary.send_modify(|primary| {
            id = primary.id + 1;
            *primary = Primary {
                id,
                present: true,
                consumed,
            };
        });
        PrimaryGuard {
            live: self.clone(),
            id,
        }
    }
}

/// Held by the primary's stream; dropping it lets the runner go ahead.
#[derive(Debug)]
pub(super) struct PrimaryGuard {
    live: Arc<Live>,
    id: u64,
}

impl PrimaryGuard {
    pub(super) fn consumed(&self, offset: u64) {
        self.live.primary.send_if_modified(|primary| {
            let mine = primary.id == self.id;
            if mine {
                primary.consumed = offset;
            }
            mine
        });
    }
}

impl Drop for PrimaryGuard {
    fn drop(&mut self) {
        self.live.primary.send_if_modified(|primary| {
            let mine = primary.id == self.id;
            if mine {
                primary.present = false;
            }
            mine
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, data: &'static [u8]) -> Chunk {
        Chunk {
            offset,
            stream: OutputStream::Stdout,
            data: Bytes::from_static(data),
        }
    }

    #[test]
    fn any_offset_in_memory_is_found() {
        let live = Live::new(0);
        live.push(chunk(0, b"abc"));
        live.push(chunk(3, b"defg"));
        assert_eq!(live.get(0).unwrap().data, "abc");
        assert_eq!(live.get(2).unwrap().data, "c");
        assert_eq!(live.get(3).unwrap().data, "defg");
        assert_eq!(live.get(6).unwrap().data, "g");
        assert_eq!(live.get(7), None);
    }

    #[test]
    fn memory_is_bounded_and_old_bytes_are_left_to_the_files() {
        let live = Live::new(0);
        let big = Bytes::from(vec![0; WINDOW_BYTES as usize]);
        for index in 0..5 {
            live.push(Chunk {
                offset: index * WINDOW_BYTES,
                stream: OutputStream::Stdout,
                data: big.clone(),
            });
        }
        assert_eq!(live.get(0), None);
        assert!(live.get(4 * WINDOW_BYTES).is_some());
        assert!(live.ring.lock().unwrap().bytes <= 2 * WINDOW_BYTES);
    }

    #[test]
    fn what_the_primary_has_not_read_stays_and_what_it_has_read_goes() {
        let live = Live::new(0);
        let half = Bytes::from(vec![0; WINDOW_BYTES as usize / 2]);
        let push = |index: u64| {
            live.push(Chunk {
                offset: index * WINDOW_BYTES / 2,
                stream: OutputStream::Stdout,
                data: half.clone(),
            });
        };
        let primary = live.become_primary(0);
        (0..3).for_each(push);
        assert!(live.get(0).is_some());
        primary.consumed(WINDOW_BYTES);
        push(3);
        assert_eq!(live.get(0), None);
        assert!(live.get(WINDOW_BYTES).is_some());
        assert!(live.ring.lock().unwrap().bytes <= WINDOW_BYTES);
    }

    #[test]
    fn a_later_primary_takes_over_and_the_earlier_one_does_not_matter() {
        let live = Live::new(0);
        let first = live.become_primary(0);
        let second = live.become_primary(5);
        first.consumed(3);
        drop(first);
        let seen = *live.primary().borrow();
        assert_eq!((seen.present, seen.consumed), (true, 5));
        drop(second);
        assert!(!live.primary().borrow().present);
    }
}
