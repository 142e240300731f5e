//! The writer of a log.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::frame::{END, FRAME_BYTES_MAX, GROW_BYTES_MAX, Header};
use super::segment::{Check, Part, Segment, SegmentName};
use super::shared::{Caps, Map, Shared};
use super::{OutputError, OutputReader, OutputStream};

/// The one writer of an execution's output.
#[derive(Debug)]
pub struct OutputLog {
    shared: Arc<Shared>,
    caps: Caps,
    end: watch::Sender<u64>,
    /// The segment that is being written.
    current: Option<Current>,
    /// The last that fell out of the tail. Its file becomes the next segment's: pages that are there
    /// are written over for half of what it costs to give them back and to get new ones.
    spare: Option<SegmentName>,
}

#[derive(Debug)]
struct Current {
    name: SegmentName,
    file: File,
    /// What has to stand behind the last frame: something, if the file held other frames before.
    end: &'static [u8],
    /// Length of the file without the last frame.
    closed_size: u64,
    last: Option<LastFrame>,
}

#[derive(Debug)]
struct LastFrame {
    header: Header,
    hasher: crc32fast::Hasher,
}

impl OutputLog {
    /// A new log. Nothing is made on the disk before the first byte.
    pub fn create(directory: impl Into<PathBuf>, cap_bytes: u64) -> Self {
        Self::with(directory.into(), Caps::new(cap_bytes), Map::default())
    }

    /// A log that an earlier gateway wrote; every byte of it is checked. What is not whole at its
    /// end is cut off: [`Self::end_offset`] says from where on the output is needed again.
    pub fn open(directory: impl Into<PathBuf>, cap_bytes: u64) -> Result<Self, OutputError> {
        let directory = directory.into();
        let caps = Caps::new(cap_bytes);
        let (map, unused) = Map::load(&directory, &caps, Check::Bytes)?;
        let mut log = Self::with(directory, caps, map);
        log.remove(&unused)?;
        log.reopen_last()?;
        Ok(log)
    }

    fn with(directory: PathBuf, caps: Caps, map: Map) -> Self {
        let (end, _) = watch::channel(map.end);
        Self {
            shared: Arc::new(Shared::new(directory, map)),
            caps,
            end,
            current: None,
            spare: None,
        }
    }

    /// Adds bytes at the end. After an error, [`Self::end_offset`] says how many of them were taken;
    /// the rest may be tried again.
    pub fn append(&mut self, stream: OutputStream, bytes: &[u8]) -> Result<(), OutputError> {
        let mut rest = bytes;
        let mut outcome = Ok(());
        while !rest.is_empty() && outcome.is_ok() {
            outcome = self
                .append_some(stream, rest)
                .map(|taken| rest = &rest[taken..]);
        }
        if rest.len() < bytes.len() {
            self.end.send_replace(self.end_offset());
        }
        outcome
    }

    /// Length of the whole output, dropped bytes included.
    pub fn end_offset(&self) -> u64 {
        self.shared.map().end
    }

    /// How many bytes between head and tail are not kept.
    pub fn dropped(&self) -> u64 {
        self.shared.map().dropped()
    }

    /// The end offset, each time it has grown. Closed when the log is dropped.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// A reader of this log, which sees what is appended later, too.
    pub fn reader(&self) -> OutputReader {
        OutputReader::new(Arc::clone(&self.shared))
    }

    /// Waits until everything is on the disk. Takes milliseconds: not for the path of every
    /// execution.
    pub fn sync(&self) -> Result<(), OutputError> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        let path = current.name.path(&self.shared.directory);
        current
            .file
            .sync_data()
            .map_err(|error| OutputError::io("sync", &path, error))
    }

    /// Appends as much as fits in one frame of one segment.
    fn append_some(&mut self, stream: OutputStream, bytes: &[u8]) -> Result<usize, OutputError> {
        let room = self.make_room()?;
        let taken = bytes.len().min(room).min(FRAME_BYTES_MAX);
        let bytes = &bytes[..taken];
        let Some(current) = &mut self.current else {
            return Ok(0);
        };
        let written = match &current.last {
            Some(last) if last.takes(stream, bytes) => current.grow(bytes),
            _ => current.start_frame(stream, self.shared.map().end, bytes),
        };
        if let Err(error) = written {
            let path = current.name.path(&self.shared.directory);
            return Err(OutputError::io("write", &path, error));
        }
        let mut gone = self.publish();
        if let Some(last) = gone.pop() {
            // Always the one before the tail, and the oldest goes first: whoever opens the log must find
            // no hole behind what is left.
            if let Some(oldest) = self.spare.replace(last) {
                gone.insert(0, oldest);
            }
        }
        // The bytes are taken; a file that cannot be removed now is found again when the log is
        // opened or removed.
        let _ = self.remove(&gone);
        Ok(taken)
    }

    /// Makes what was written visible. Returns the segments that fell out of the tail by it.
    fn publish(&mut self) -> Vec<SegmentName> {
        let mut map = self.shared.map();
        let Some(current) = &self.current else {
            return Vec::new();
        };
        let Some(last) = &current.last else {
            return Vec::new();
        };
        let (end, size) = (last.header.end(), current.closed_size + last.header.size());
        if let Some(segment) = map.last_mut() {
            segment.end = end;
            segment.size = size;
        }
        map.end = end;
        map.open = Some(last.header);
        map.roll(&self.caps)
    }

    /// Sees to it that there is a segment with room. Returns how many bytes of output it takes.
    fn make_room(&mut self) -> Result<usize, OutputError> {
        let (next, room) = self.plan();
        if self.current.as_ref().map(|current| current.name) != Some(next) {
            self.current = Some(self.new_segment(next)?);
            let mut map = self.shared.map();
            map.open = None;
            map.push(Segment {
                name: next,
                end: next.start,
                size: 0,
            });
        }
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Which segment the next byte goes to, and how many go there.
    fn plan(&self) -> (SegmentName, u64) {
        let map = self.shared.map();
        let end = map.end;
        let head_size: u64 = map.head.iter().map(|segment| segment.size).sum();
        let in_head = map.tail.is_empty()
            && end < self.caps.head
            && head_size < Caps::file_bytes(self.caps.head);
        let (part, last) = match in_head {
            true => (Part::Head, map.head.last()),
            false => (Part::Tail, map.tail.back()),
        };
        let part_room = match part {
            Part::Head => self.caps.head - end,
            Part::Tail => u64::MAX,
        };
        if let Some(last) = last {
            let used = end - last.name.start;
            if used < self.caps.segment && last.size < 2 * self.caps.segment {
                return (last.name, part_room.min(self.caps.segment - used));
            }
        }
        let name = SegmentName { part, start: end };
        (name, part_room.min(self.caps.segment))
    }

    fn new_segment(&mut self, name: SegmentName) -> Result<Current, OutputError> {
        match self.reuse_spare(name) {
            Some(file) => Ok(Current {
                name,
                file,
                end: &END,
                closed_size: 0,
                last: None,
            }),
            None => self.create_segment(name),
        }
    }

    /// None: there is no spare, or it is of no use; then a new file is.
    fn reuse_spare(&mut self, name: SegmentName) -> Option<File> {
        let directory = &self.shared.directory;
        let (old, new) = (self.spare.take()?.path(directory), name.path(directory));
        std::fs::rename(old, &new).ok()?;
        OpenOptions::new().read(true).write(true).open(&new).ok()
    }

    fn create_segment(&self, name: SegmentName) -> Result<Current, OutputError> {
        let directory = &self.shared.directory;
        let path = name.path(directory);
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
        };
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o700);
                builder
                    .create(directory)
                    .map_err(|error| OutputError::io("create", directory, error))?;
                open()
            }
            other => other,
        };
        Ok(Current {
            name,
            file: file.map_err(|error| OutputError::io("create", &path, error))?,
            end: &[],
            closed_size: 0,
            last: None,
        })
    }

    /// Goes on writing in the last segment, behind its last whole frame.
    fn reopen_last(&mut self) -> Result<(), OutputError> {
        let Some(segment) = self.shared.map().last_mut().copied() else {
            return Ok(());
        };
        let path = segment.name.path(&self.shared.directory);
        let open = || -> io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            file.set_len(segment.size)?;
            Ok(file)
        };
        self.current = Some(Current {
            name: segment.name,
            file: open().map_err(|error| OutputError::io("open", &path, error))?,
            end: &[],
            closed_size: segment.size,
            last: None,
        });
        Ok(())
    }

    fn remove(&self, names: &[SegmentName]) -> Result<(), OutputError> {
        for name in names {
            let path = name.path(&self.shared.directory);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OutputError::io("remove", &path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for OutputLog {
    fn drop(&mut self) {
        // One that stays is found when the log is opened or removed.
        let _ = self.remove(self.spare.as_slice());
    }
}

impl LastFrame {
    fn takes(&self, stream: OutputStream, bytes: &[u8]) -> bool {
        self.header.stream == stream && self.header.length as usize + bytes.len() <= GROW_BYTES_MAX
    }
}

impl Current {
    /// First the bytes, then the header that counts them: whoever stops in between leaves the frame
    /// as it was, with some bytes behind it that are not part of it.
    fn grow(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = &mut self.last else {
            return Ok(());
        };
        let position = self.closed_size + last.header.size();
        write_all(&self.file, [bytes, self.end], position)?;
        let mut hasher = last.hasher.clone();
        hasher.update(bytes);
        let header = Header {
            length: last.header.length + bytes.len() as u32,
            crc: hasher.clone().finalize(),
            ..last.header
        };
        self.file.write_all_at(&header.encode(), self.closed_size)?;
        *last = LastFrame { header, hasher };
        Ok(())
    }

    fn start_frame(&mut self, stream: OutputStream, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(bytes);
        let header = Header {
            stream,
            length: bytes.len() as u32,
            offset,
            crc: hasher.clone().finalize(),
        };
        let position = self.closed_size + self.last.as_ref().map_or(0, |last| last.header.size());
        write_all(&self.file, [&header.encode(), bytes, self.end], position)?;
        self.closed_size = position;
        self.last = Some(LastFrame { header, hasher });
        Ok(())
    }
}

/// All parts, one behind the other, with one system call as a rule.
fn write_all<const N: usize>(file: &File, parts: [&[u8]; N], mut position: u64) -> io::Result<()> {
    let slices = parts.map(IoSlice::new);
    let mut written = loop {
        match rustix::io::pwritev(file, &slices, position) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    for part in parts {
        let done = written.min(part.len());
        written -= done;
        position += done as u64;
        file.write_all_at(&part[done..], position)?;
        position += (part.len() - done) as u64;
    }
    Ok(())
}
