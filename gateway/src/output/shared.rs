//! What a live log's writer and its readers share: which segments there are and what is visible.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::OutputError;
use super::frame::Header;
use super::segment::{self, Check, Part, Segment, SegmentName};

/// How much of an output is kept, from its cap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) head: u64,
    pub(super) tail: u64,
    /// Output bytes in a segment.
    pub(super) segment: u64,
}

const SEGMENT_BYTES_MIN: u64 = 64 * 1024;
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl Caps {
    pub(super) fn new(cap_bytes: u64) -> Self {
        let head = cap_bytes / 2;
        Self {
            head,
            tail: cap_bytes - head,
            segment: (cap_bytes / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
        }
    }

    /// Bytes of files, headers included, that may stand for `bytes` of output. Only a workload that
    /// changes between its streams with every few bytes gets near it; it loses some of the middle
    /// earlier then, instead of filling the disk with headers.
    pub(super) fn file_bytes(bytes: u64) -> u64 {
        2 * bytes + 256 * 1024
    }
}

/// The segments of a log.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) head: Vec<Segment>,
    pub(super) tail: VecDeque<Segment>,
    /// The frame at the end of the last segment, which may still grow. On the disk its header may
    /// be changing at this moment, so readers take this one.
    pub(super) open: Option<Header>,
    /// Offset behind the last byte.
    pub(super) end: u64,
    /// In the tail's segments, bytes before this offset count as dropped.
    pub(super) tail_start: u64,
}

/// Where a reader has to look.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Segment {
        segment: Segment,
        /// Of the frames in it, the one that is not to be read from the disk.
        open: Option<Header>,
    },
    Gap {
        length: u64,
    },
    End,
}

impl Map {
    pub(super) fn head_end(&self) -> u64 {
        self.head.last().map_or(0, |segment| segment.end)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.tail_start.saturating_sub(self.head_end())
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Segment> {
        self.tail.back_mut().or_else(|| self.head.last_mut())
    }

    pub(super) fn push(&mut self, segment: Segment) {
        match segment.name.part {
            Part::Head => self.head.push(segment),
            Part::Tail => self.tail.push_back(segment),
        }
    }

    /// Moves the tail's start up to what the caps leave, and takes out segments that lie before it
    /// or are too many. Their files are the caller's to remove.
    pub(super) fn roll(&mut self, caps: &Caps) -> Vec<SegmentName> {
        let mut gone = Vec::new();
        let mut size: u64 = self.tail.iter().map(|segment| segment.size).sum();
        let start = self.end.saturating_sub(caps.tail).max(self.head_end());
        self.tail_start = self.tail_start.max(start);
        while self.tail.len() > 1 {
            let first = self.tail[0];
            if first.end > self.tail_start && size <= Caps::file_bytes(caps.tail) {
                break;
            }
            self.tail.pop_front();
            self.tail_start = self.tail_start.max(first.end);
            size -= first.size;
            gone.push(first.name);
        }
        gone
    }

    /// Whether a segment that was here still is. Until it is not, its file is only added to.
    pub(super) fn holds(&self, name: SegmentName) -> bool {
        let is_in_tail = |first: &Segment| first.name.start <= name.start;
        name.part == Part::Head || self.tail.front().is_some_and(is_in_tail)
    }

    pub(super) fn find(&self, offset: u64) -> Place {
        if offset >= self.end {
            return Place::End;
        }
        let head_end = self.head_end();
        if offset >= head_end && offset < self.tail_start {
            let length = self.tail_start - offset;
            return Place::Gap { length };
        }
        let found = if offset < head_end {
            let after = self.head.partition_point(|s| s.name.start <= offset);
            self.head.get(after.wrapping_sub(1))
        } else {
            let after = self.tail.partition_point(|s| s.name.start <= offset);
            self.tail.get(after.wrapping_sub(1))
        };
        match found {
            Some(&segment) => {
                let open = self.open.filter(|header| header.end() == segment.end);
                Place::Segment { segment, open }
            }
            None => Place::End,
        }
    }

    /// What is on the disk, as far as it is whole. The second value: segments that are not part of
    /// it and, last, whether the files hold bytes behind it.
    pub(super) fn load(
        directory: &Path,
        caps: &Caps,
        check: Check,
    ) -> Result<(Self, Vec<SegmentName>), OutputError> {
        let names = segment::list(directory)?;
        let mut map = Self::default();
        let mut rest = names.as_slice();
        while let [name, after @ ..] = rest {
            if !map.continues_with(*name) {
                break;
            }
            // Without a close look, only the last segment of each part has to be gone through: the
            // others end where the next begins.
            let next = after.first().filter(|next| next.part == name.part);
            let segment = match (check, next) {
                (Check::Frames, Some(next)) => {
                    file_size(&name.path(directory)).map(|size| Segment {
                        name: *name,
                        end: next.start,
                        size,
                    })
                }
                _ => segment::scan(directory, *name, check),
            };
            let segment = match segment {
                // The spare of a writer that has just gone.
                Err(error) if error.is_not_found() && map.may_begin_tail(*name) => {
                    rest = after;
                    continue;
                }
                other => other?,
            };
            rest = after;
            map.end = segment.end;
            map.push(segment);
        }
        let first_kept = map.tail.front().map_or(0, |segment| segment.name.start);
        map.tail_start = first_kept.max(map.head_end());
        let unused = [map.roll(caps), rest.to_vec()].concat();
        Ok((map, unused))
    }

    fn may_begin_tail(&self, name: SegmentName) -> bool {
        name.part == Part::Tail && self.tail.is_empty()
    }

    /// Whether a segment may stand behind those that are here.
    fn continues_with(&self, name: SegmentName) -> bool {
        match name.part {
            Part::Head => name.start == self.end,
            Part::Tail if self.tail.is_empty() => name.start >= self.head_end(),
            Part::Tail => name.start == self.end,
        }
    }
}

fn file_size(path: &Path) -> Result<u64, OutputError> {
    let metadata = std::fs::metadata(path).map_err(|error| OutputError::io("read", path, error))?;
    Ok(metadata.len())
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: PathBuf,
    map: Mutex<Map>,
}

impl Shared {
    pub(super) fn new(directory: PathBuf, map: Map) -> Self {
        let map = Mutex::new(map);
        Self { directory, map }
    }

    /// Held for a few instructions only, never over input or output.
    pub(super) fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
