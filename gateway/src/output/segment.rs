//! Segment files: their names, and how one is scanned.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::OutputError;
use super::frame::{HEADER_BYTES, Header};

/// How much a scan reads at once.
const SCAN_BYTES: usize = 16 * 1024;

/// Which end of the output a segment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Head,
    Tail,
}

/// A segment's identity, which is also its file name: `h-00000000000000000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    pub(super) part: Part,
    /// Output offset of its first byte.
    pub(super) start: u64,
}

impl SegmentName {
    pub(super) fn path(self, directory: &Path) -> PathBuf {
        let part = match self.part {
            Part::Head => 'h',
            Part::Tail => 't',
        };
        directory.join(format!("{part}-{:020}", self.start))
    }

    fn parse(name: &str) -> Option<Self> {
        let (part, start) = name.split_once('-')?;
        let part = match part {
            "h" => Part::Head,
            "t" => Part::Tail,
            _ => return None,
        };
        if start.len() != 20 {
            return None;
        }
        let start = start.parse().ok()?;
        Some(Self { part, start })
    }
}

/// A segment as it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    /// Output offset behind its last byte.
    pub(super) end: u64,
    /// Length of its file, as far as it is whole frames.
    pub(super) size: u64,
}

/// The names of all segments of a log in order: the head's, then the tail's.
pub(super) fn list(directory: &Path) -> Result<Vec<SegmentName>, OutputError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OutputError::io("list", directory, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| OutputError::io("list", directory, error))?;
        names.extend(entry.file_name().to_str().and_then(SegmentName::parse));
    }
    names.sort_unstable();
    Ok(names)
}

/// How closely a scan looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Headers and lengths.
    Frames,
    /// Every byte.
    Bytes,
}

/// Goes through a segment's frames until the first that is not whole; what lies before it counts.
pub(super) fn scan(
    directory: &Path,
    name: SegmentName,
    check: Check,
) -> Result<Segment, OutputError> {
    let path = name.path(directory);
    let failed = |error| OutputError::io("read", &path, error);
    let file = File::open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut segment = Segment {
        name,
        end: name.start,
        size: 0,
    };
    let mut headers = Headers::default();
    let mut payload = Vec::new();
    while let Some(header) = headers.at(&file, segment.size, length).map_err(failed)? {
        let whole = segment.size + header.size() <= length && header.offset == segment.end;
        if !whole {
            break;
        }
        if check == Check::Bytes {
            payload.resize(header.length as usize, 0);
            file.read_exact_at(&mut payload, segment.size + HEADER_BYTES)
                .map_err(failed)?;
            if crc32fast::hash(&payload) != header.crc {
                break;
            }
        }
        segment.end = header.end();
        segment.size += header.size();
    }
    Ok(segment)
}

/// Reads headers of neighbouring frames with few system calls.
#[derive(Debug, Default)]
pub(super) struct Headers {
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    position: u64,
}

impl Headers {
    /// The header at `position`, of a file whose first `limit` bytes may be looked at. `None`: there
    /// is none.
    pub(super) fn at(
        &mut self,
        file: &File,
        position: u64,
        limit: u64,
    ) -> io::Result<Option<Header>> {
        if position + HEADER_BYTES > limit {
            return Ok(None);
        }
        let buffered = self.position..self.position + self.buffer.len() as u64;
        if !(buffered.contains(&position) && position + HEADER_BYTES <= buffered.end) {
            let wanted = (limit - position).min(SCAN_BYTES as u64) as usize;
            self.buffer.resize(wanted, 0);
            self.position = position;
            if let Err(error) = file.read_exact_at(&mut self.buffer, position) {
                self.buffer.clear();
                return Err(error);
            }
        }
        let start = (position - self.position) as usize;
        Ok(Header::decode(
            &self.buffer[start..start + HEADER_BYTES as usize],
        ))
    }
}
