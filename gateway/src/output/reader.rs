//! Readers of a log: each with its own files and position.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::frame::{HEADER_BYTES, Header};
use super::segment::{Check, Headers, Segment, SegmentName};
use super::shared::{Caps, Map, Place, Shared};
use super::{OutputError, OutputStream};

/// What comes next in an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of one stream.
    Chunk {
        offset: u64,
        stream: OutputStream,
        bytes: Bytes,
    },
    /// These bytes were dropped.
    Gap { offset: u64, length: u64 },
    /// There is nothing more, now.
    End,
}

/// Reads a log from any offset, as often as wanted.
#[derive(Debug)]
pub struct OutputReader {
    shared: Arc<Shared>,
    file: Option<OpenSegment>,
}

#[derive(Debug)]
struct OpenSegment {
    name: SegmentName,
    file: File,
    headers: Headers,
    /// A frame's place in the file and its header's offset: where the last search ended.
    position: u64,
    offset: u64,
}

impl OutputReader {
    /// A log whose writer is gone. Nothing on the disk is changed.
    pub fn open(directory: impl Into<PathBuf>, cap_bytes: u64) -> Result<Self, OutputError> {
        let directory = directory.into();
        let (map, _) = Map::load(&directory, &Caps::new(cap_bytes), Check::Frames)?;
        Ok(Self::new(Arc::new(Shared::new(directory, map))))
    }

    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, file: None }
    }

    /// Another reader of the same log, with a position of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }

    /// Length of the whole output as it is now, dropped bytes included.
    pub fn end_offset(&self) -> u64 {
        self.shared.map().end
    }

    /// How many bytes between head and tail are not kept.
    pub fn dropped(&self) -> u64 {
        self.shared.map().dropped()
    }

    /// The bytes at `offset`, at most `max` of them (and at least one, unless it is the end), or how
    /// many are missing there.
    pub fn next(&mut self, offset: u64, max: usize) -> Result<Piece, OutputError> {
        loop {
            let place = self.shared.map().find(offset);
            let (segment, open) = match place {
                Place::End => return Ok(Piece::End),
                Place::Gap { length } => return Ok(Piece::Gap { offset, length }),
                Place::Segment { segment, open } => (segment, open),
            };
            let piece = self.read(&segment, open, offset, max.max(1));
            // Otherwise the writer has dropped the segment meanwhile, and what was read may be of
            // another one that is written over it.
            if self.shared.map().holds(segment.name) {
                return piece;
            }
        }
    }

    fn read(
        &mut self,
        segment: &Segment,
        open: Option<Header>,
        offset: u64,
        max: usize,
    ) -> Result<Piece, OutputError> {
        let path = segment.name.path(&self.shared.directory);
        let failed = |error| OutputError::io("read", &path, error);
        let damaged = || OutputError::Damaged {
            path: path.clone(),
            offset,
        };
        let file = match &mut self.file {
            Some(file) if file.name == segment.name => file,
            slot => slot.insert(OpenSegment::open(segment, &path).map_err(failed)?),
        };
        let (position, header) = file
            .find(segment, open, offset)
            .map_err(failed)?
            .ok_or_else(damaged)?;
        let skip = offset - header.offset;
        let length = (u64::from(header.length) - skip).min(max as u64) as usize;
        let mut bytes = BytesMut::zeroed(length);
        file.file
            .read_exact_at(&mut bytes, position + HEADER_BYTES + skip)
            .map_err(failed)?;
        let whole = length == header.length as usize;
        if whole && crc32fast::hash(&bytes) != header.crc {
            return Err(damaged());
        }
        Ok(Piece::Chunk {
            offset,
            stream: header.stream,
            bytes: bytes.freeze(),
        })
    }
}

impl OpenSegment {
    fn open(segment: &Segment, path: &Path) -> io::Result<Self> {
        Ok(Self {
            name: segment.name,
            file: File::open(path)?,
            headers: Headers::default(),
            position: 0,
            offset: segment.name.start,
        })
    }

    /// The frame that holds `offset`, and its place. `None`: the file is not what it should be.
    fn find(
        &mut self,
        segment: &Segment,
        open: Option<Header>,
        offset: u64,
    ) -> io::Result<Option<(u64, Header)>> {
        if let Some(open) = open.filter(|open| open.offset <= offset) {
            return Ok(Some((segment.size - open.size(), open)));
        }
        let closed = segment.size - open.map_or(0, |open| open.size());
        if self.offset > offset {
            self.position = 0;
            self.offset = segment.name.start;
        }
        loop {
            let header = self.headers.at(&self.file, self.position, closed)?;
            let Some(header) = header.filter(|header| header.offset == self.offset) else {
                return Ok(None);
            };
            if header.end() > offset {
                return Ok(Some((self.position, header)));
            }
            self.position += header.size();
            self.offset = header.end();
        }
    }
}
