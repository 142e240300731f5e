//! The spool: output that waits to be acknowledged, as one sequence of bytes over all streams.
//!
//! Bounded in bytes and in pieces. It never drops what was not acknowledged: when it is full, nobody
//! may append, and so the process blocks on its pipe.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use cofferdam_proto::supervisor::v1::OutputStream;

/// Neighbours of one stream are joined up to this size, so that a program that writes single bytes
/// costs no bookkeeping per byte.
const JOIN_BYTES: usize = 4096;
/// What one piece costs beside its bytes. Programs that alternate between their streams byte by
/// byte fill the spool by this.
const PIECE_OVERHEAD_BYTES: u64 = 64;

/// Bytes of one stream at their place in the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) stream: OutputStream,
    pub(crate) data: Bytes,
}

impl Piece {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    pieces: VecDeque<Piece>,
    first: u64,
    end: u64,
    capacity_bytes: u64,
}

impl Spool {
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self {
            pieces: VecDeque::new(),
            first: 0,
            end: 0,
            capacity_bytes,
        }
    }

    /// The first offset that is still held.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Length of the output so far.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes that are held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.end - self.first
    }

    /// How much may be appended now, if no more than `limit` bytes shall be held.
    pub(crate) fn room_bytes(&self, limit: u64) -> usize {
        let overhead = (self.pieces.len() as u64).saturating_sub(64) * PIECE_OVERHEAD_BYTES;
        let capacity = self.capacity_bytes.min(limit);
        usize::try_from(capacity.saturating_sub(self.held_bytes() + overhead)).unwrap_or(usize::MAX)
    }

    /// Appends what a stream gave. The caller has asked for room.
    pub(crate) fn append(&mut self, stream: OutputStream, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let offset = self.end;
        self.end += data.len() as u64;
        if let Some(last) = self.pieces.back_mut()
            && last.stream == stream
            && last.data.len() + data.len() <= JOIN_BYTES
        {
            let mut joined = BytesMut::with_capacity(last.data.len() + data.len());
            joined.extend_from_slice(&last.data);
            joined.extend_from_slice(&data);
            last.data = joined.freeze();
            return;
        }
        self.pieces.push_back(Piece {
            offset,
            stream,
            data,
        });
    }

    /// Frees everything before `offset`. False if so much output never was.
    pub(crate) fn acknowledge(&mut self, offset: u64) -> bool {
        if offset > self.end {
            return false;
        }
        self.first = self.first.max(offset);
        while self
            .pieces
            .front()
            .is_some_and(|piece| piece.end() <= self.first)
        {
            self.pieces.pop_front();
        }
        if let Some(piece) = self.pieces.front_mut()
            && piece.offset < self.first
        {
            let gone = (self.first - piece.offset) as usize;
            piece.data = piece.data.slice(gone..);
            piece.offset = self.first;
        }
        true
    }

    /// The rest of the piece that holds `offset`; none at the end, or before the first held offset.
    pub(crate) fn read(&self, offset: u64) -> Option<Piece> {
        if offset < self.first || offset >= self.end {
            return None;
        }
        let index = self.pieces.partition_point(|piece| piece.end() <= offset);
        let piece = self.pieces.get(index)?;
        let skipped = (offset - piece.offset) as usize;
        Some(Piece {
            offset,
            stream: piece.stream,
            data: piece.data.slice(skipped..),
        })
    }
}

#[cfg(test)]
mod tests {
    use OutputStream::{Stderr, Stdout};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn read_all(spool: &Spool) -> Vec<(OutputStream, u8)> {
        let mut at = spool.first();
        let mut all = Vec::new();
        while let Some(piece) = spool.read(at) {
            assert_eq!(piece.offset, at);
            at = piece.end();
            all.extend(piece.data.iter().map(|&byte| (piece.stream, byte)));
        }
        assert_eq!(at, spool.end());
        all
    }

    #[test]
    fn single_bytes_of_one_stream_are_joined() {
        let mut spool = Spool::new(1 << 20);
        for byte in 0..=255u8 {
            spool.append(Stdout, Bytes::copy_from_slice(&[byte]));
        }
        assert_eq!(spool.pieces.len(), 1);
    }

    #[test]
    fn a_full_spool_has_no_room_until_something_is_acknowledged() {
        let mut spool = Spool::new(10);
        spool.append(Stdout, Bytes::from_static(b"0123456789"));
        assert_eq!(spool.room_bytes(u64::MAX), 0);
        assert!(spool.acknowledge(4));
        assert_eq!(spool.room_bytes(u64::MAX), 4);
        assert_eq!(spool.room_bytes(7), 1);
        assert!(
            !spool.acknowledge(11),
            "nobody can have stored what was never written"
        );
    }

    #[test]
    fn alternating_single_bytes_cannot_grow_the_bookkeeping_without_bound() {
        let mut spool = Spool::new(1 << 20);
        let mut appended = 0u64;
        while spool.room_bytes(u64::MAX) > 0 {
            let stream = if appended.is_multiple_of(2) {
                Stdout
            } else {
                Stderr
            };
            spool.append(stream, Bytes::from_static(b"x"));
            appended += 1;
        }
        assert!(spool.pieces.len() < 17_000);
    }

    #[test]
    fn an_acknowledgement_that_goes_back_changes_nothing() {
        let mut spool = Spool::new(100);
        spool.append(Stdout, Bytes::from_static(b"0123456789"));
        assert!(spool.acknowledge(8));
        assert!(spool.acknowledge(3));
        assert_eq!(spool.first(), 8);
        assert_eq!(spool.read(7), None);
        assert_eq!(
            spool.read(8).map(|piece| piece.data),
            Some(Bytes::from_static(b"89"))
        );
    }

    proptest! {
        #[test]
        fn what_was_appended_is_read_once_and_in_order(
            writes in vec((any::<bool>(), vec(any::<u8>(), 0..3000), any::<prop::sample::Index>()), 1..40),
        ) {
            let mut spool = Spool::new(u64::MAX);
            let mut expected: Vec<(OutputStream, u8)> = Vec::new();
            for (error, data, acknowledge) in writes {
                let stream = if error { Stderr } else { Stdout };
                expected.extend(data.iter().map(|&byte| (stream, byte)));
                spool.append(stream, data.into());
                let offset = acknowledge.index(expected.len() + 1) as u64;
                prop_assert!(spool.acknowledge(offset));
                prop_assert_eq!(spool.end(), expected.len() as u64);
                prop_assert_eq!(&read_all(&spool)[..], &expected[spool.first() as usize..]);
            }
        }
    }
}
