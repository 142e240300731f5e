//! Head, tail, gaps and torn ends of a log.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;

use super::frame::HEADER_BYTES;
use super::shared::Caps;
use super::*;

fn stream_of(stderr: bool) -> OutputStream {
    match stderr {
        true => OutputStream::Stderr,
        false => OutputStream::Stdout,
    }
}

/// Bytes that say where they belong.
fn content(from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64)
        .map(|offset| (offset ^ (offset >> 8) ^ (offset >> 16)) as u8)
        .collect()
}

/// What was appended: for each append its stream and end offset.
#[derive(Default)]
struct Written {
    ends: Vec<(u64, OutputStream)>,
}

impl Written {
    fn append(&mut self, log: &mut OutputLog, stream: OutputStream, length: usize) {
        let from = log.end_offset();
        log.append(stream, &content(from, length)).unwrap();
        assert_eq!(log.end_offset(), from + length as u64);
        self.ends.push((log.end_offset(), stream));
    }

    fn stream_at(&self, offset: u64) -> OutputStream {
        let index = self.ends.partition_point(|(end, _)| *end <= offset);
        self.ends[index].1
    }
}

/// Reads from `from` to the end and checks every byte. Returns the gaps.
fn read_all(
    reader: &mut OutputReader,
    written: &Written,
    from: u64,
    max: usize,
) -> Vec<(u64, u64)> {
    let mut next = from;
    let mut gaps = Vec::new();
    loop {
        match reader.next(next, max).unwrap() {
            Piece::End => break,
            Piece::Gap { offset, length } => {
                assert_eq!(offset, next);
                gaps.push((offset, length));
                next += length;
            }
            Piece::Chunk {
                offset,
                stream,
                bytes,
            } => {
                assert_eq!(offset, next);
                assert!(!bytes.is_empty() && bytes.len() <= max);
                assert_eq!(bytes, content(offset, bytes.len()));
                next += bytes.len() as u64;
                for at in [offset, next - 1] {
                    assert_eq!(written.stream_at(at), stream, "offset {at}");
                }
            }
        }
    }
    assert_eq!(next, reader.end_offset().max(from));
    gaps
}

/// The gap that a cap must leave.
fn expected_gap(end: u64, cap: u64) -> Vec<(u64, u64)> {
    match end > cap {
        true => vec![(cap / 2, end - cap)],
        false => Vec::new(),
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let names = segment::list(directory).unwrap();
    names.iter().map(|name| name.path(directory)).collect()
}

fn disk_bytes(directory: &Path) -> u64 {
    let sizes = files(directory);
    sizes
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum()
}

/// One that was killed has tidied nothing up.
fn end_of_writer(log: OutputLog, killed: bool) {
    match killed {
        true => std::mem::forget(log),
        false => drop(log),
    }
}

fn appends() -> impl Strategy<Value = Vec<(bool, usize)>> {
    let length = prop_oneof![1..40_usize, 1..5_000_usize, 60_000..200_000_usize];
    vec((any::<bool>(), length), 0..40)
}

fn caps() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 1_000..300_000_u64, Just(8 << 20)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_appends_under_any_cap_leave_exactly_head_and_tail(
        appends in appends(), cap in caps(), max in 1_000..300_000_usize, from in 0..1_000_000_u64,
        killed in any::<bool>(),
    ) {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("log");
        let mut log = OutputLog::create(&directory, cap);
        let mut written = Written::default();
        let mut live = log.reader();
        for (stderr, length) in appends {
            written.append(&mut log, stream_of(stderr), length);
            read_all(&mut live, &written, log.end_offset().saturating_sub(10), max);
        }
        let end = log.end_offset();
        let gaps = expected_gap(end, cap);
        prop_assert_eq!(log.dropped(), end.saturating_sub(cap));
        prop_assert_eq!(&read_all(&mut live, &written, 0, max), &gaps);
        read_all(&mut live, &written, from, max);

        let mut later = OutputReader::open(&directory, cap).unwrap();
        prop_assert_eq!(later.dropped(), log.dropped());
        prop_assert_eq!(&read_all(&mut later, &written, 0, max), &gaps);

        end_of_writer(log, killed);
        let log = OutputLog::open(&directory, cap).unwrap();
        prop_assert_eq!((log.end_offset(), log.dropped()), (end, end.saturating_sub(cap)));
        prop_assert_eq!(&read_all(&mut log.reader(), &written, 0, max), &gaps);
    }

    #[test]
    fn a_log_cut_off_at_any_byte_opens_with_a_prefix_and_goes_on(
        appends in appends(), cap in caps(), cut in any::<prop::sample::Index>(),
        garbage in vec(any::<u8>(), 0..100), more in appends(),
    ) {
        let home = tempfile::tempdir().unwrap();
        let mut log = OutputLog::create(home.path(), cap);
        let mut written = Written::default();
        for (stderr, length) in appends {
            written.append(&mut log, stream_of(stderr), length);
        }
        let end = log.end_offset();
        drop(log);
        if let Some(last) = files(home.path()).last() {
            let length = last.metadata().unwrap().len();
            let keep = cut.index(length as usize + 1) as u64;
            let file = OpenOptions::new().write(true).open(last).unwrap();
            file.set_len(keep).unwrap();
            file.write_all_at(&garbage, keep).unwrap();
        }

        let mut log = OutputLog::open(home.path(), cap).unwrap();
        prop_assert!(log.end_offset() <= end);
        let kept = log.end_offset();
        let last = kept.checked_sub(1).map(|last| (kept, written.stream_at(last)));
        written.ends.retain(|(end, _)| *end < kept);
        written.ends.extend(last);
        read_all(&mut log.reader(), &written, 0, 100_000);
        for (stderr, length) in more {
            written.append(&mut log, stream_of(stderr), length);
        }
        let gaps = read_all(&mut log.reader(), &written, 0, 100_000);
        let dropped: u64 = gaps.iter().map(|(_, length)| length).sum();
        prop_assert_eq!(dropped, log.dropped());
        prop_assert!(gaps.len() <= 1);
    }
}

#[test]
fn an_empty_log_has_no_files() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("log");
    let log = OutputLog::create(&directory, 1000);
    assert_eq!(log.reader().next(0, 10).unwrap(), Piece::End);
    assert!(!directory.exists());
    assert_eq!(OutputLog::open(&directory, 1000).unwrap().end_offset(), 0);
    let mut reader = OutputReader::open(&directory, 1000).unwrap();
    assert_eq!(reader.next(5, 10).unwrap(), Piece::End);
    remove(&directory).unwrap();
}

#[test]
fn one_byte_at_a_time_costs_no_header_each() {
    let home = tempfile::tempdir().unwrap();
    let mut log = OutputLog::create(home.path(), 1 << 20);
    let mut written = Written::default();
    for _ in 0..10_000 {
        written.append(&mut log, OutputStream::Stdout, 1);
    }
    assert_eq!(disk_bytes(home.path()), 10_000 + HEADER_BYTES);
    read_all(&mut log.reader(), &written, 0, 777);
}

#[test]
fn streams_that_alternate_with_every_byte_cannot_fill_the_disk() {
    let home = tempfile::tempdir().unwrap();
    let cap = 400_000;
    let mut log = OutputLog::create(home.path(), cap);
    let mut written = Written::default();
    for turn in 0..200_000 {
        written.append(&mut log, stream_of(turn % 2 == 0), 1);
    }
    let bound = 2 * Caps::file_bytes(cap / 2) + 2 * 2 * Caps::new(cap).segment;
    assert!(
        disk_bytes(home.path()) <= bound,
        "{}",
        disk_bytes(home.path())
    );
    let gaps = read_all(&mut log.reader(), &written, 0, 100);
    assert_eq!(gaps.iter().map(|gap| gap.1).sum::<u64>(), log.dropped());
    let dropped = log.dropped();
    drop(log);
    let log = OutputLog::open(home.path(), cap).unwrap();
    assert_eq!((log.end_offset(), log.dropped()), (200_000, dropped));
    assert_eq!(read_all(&mut log.reader(), &written, 0, 100), gaps);
}

#[test]
fn a_reader_that_was_overtaken_finds_the_gap_and_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let cap = 4 << 20;
    let mut log = OutputLog::create(home.path(), cap);
    let mut written = Written::default();
    let mut slow = log.reader();
    written.append(&mut log, OutputStream::Stdout, 3 << 20);
    // In the tail: this segment will be gone.
    let Piece::Chunk { bytes, .. } = slow.next(5 << 19, 1000).unwrap() else {
        panic!("a chunk was expected");
    };
    for _ in 0..64 {
        written.append(&mut log, OutputStream::Stderr, 1 << 20);
    }
    let next = (5 << 19) + bytes.len() as u64;
    let end = log.end_offset();
    assert_eq!(
        read_all(&mut slow, &written, next, 1 << 20),
        [(next, end - (2 << 20) - next)]
    );
}

#[test]
fn the_tail_is_written_over_the_same_files_again() {
    let home = tempfile::tempdir().unwrap();
    let cap = 1 << 20;
    let mut log = OutputLog::create(home.path(), cap);
    let mut written = Written::default();
    let inodes = || -> BTreeSet<u64> {
        let files = files(home.path());
        let inodes = files.iter().map(|path| path.metadata().unwrap().ino());
        inodes.collect()
    };
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        written.append(&mut log, OutputStream::Stdout, 50_000);
        seen.extend(inodes());
    }
    assert!(seen.len() < 25, "{} files", seen.len());
    assert_eq!(
        read_all(&mut log.reader(), &written, 0, 1 << 20),
        expected_gap(log.end_offset(), cap)
    );
    drop(log);
    let bound = cap + 2 * Caps::new(cap).segment;
    assert!(disk_bytes(home.path()) <= bound, "the spare stays");
}

/// Killed in the middle of writing a frame over older ones, which are whole and of the same length.
#[test]
fn what_a_frame_was_written_over_is_never_read_as_its_own() {
    const FRAME: usize = 70_000;
    let home = tempfile::tempdir().unwrap();
    let cap = 16 << 20;
    let mut log = OutputLog::create(home.path(), cap);
    let mut written = Written::default();
    for _ in 0..400 {
        written.append(&mut log, OutputStream::Stdout, FRAME);
    }
    let end = log.end_offset();
    let last = files(home.path()).pop().unwrap();
    let frames = segment::scan(home.path(), name_of(&last), segment::Check::Bytes).unwrap();
    assert_eq!(frames.end, end);
    assert!(
        last.metadata().unwrap().len() > frames.size,
        "nothing older is behind it"
    );
    std::mem::forget(log);
    let file = OpenOptions::new().write(true).open(&last).unwrap();
    file.write_all_at(&content(7, FRAME / 2), frames.size - (FRAME / 2) as u64)
        .unwrap();

    let kept = (end - FRAME as u64).max(frames.name.start);
    let log = OutputLog::open(home.path(), cap).unwrap();
    assert_eq!(log.end_offset(), kept);
    read_all(&mut log.reader(), &written, 0, 1 << 20);
}

#[test]
fn a_reader_that_is_overtaken_again_and_again_sees_no_other_bytes() {
    const TOTAL: u64 = 40 << 20;
    let home = tempfile::tempdir().unwrap();
    let mut log = OutputLog::create(home.path(), 1 << 20);
    let mut reader = log.reader();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut next = 0;
            while next < TOTAL {
                match reader.next(next, 50_000).unwrap() {
                    Piece::Chunk { bytes, .. } => {
                        assert_eq!(bytes, content(next, bytes.len()), "offset {next}");
                        next += bytes.len() as u64;
                    }
                    Piece::Gap { length, .. } => next += length,
                    Piece::End => std::thread::yield_now(),
                }
            }
        });
        while log.end_offset() < TOTAL {
            let bytes = content(log.end_offset(), 64 << 10);
            log.append(OutputStream::Stdout, &bytes).unwrap();
        }
    });
}

/// Its writer removes it, and whoever opens the log has already seen its name.
#[test]
fn a_spare_that_goes_while_the_log_is_opened_is_none_of_it() {
    let home = tempfile::tempdir().unwrap();
    let cap = 1 << 20;
    let mut log = OutputLog::create(home.path(), cap);
    let mut written = Written::default();
    for _ in 0..100 {
        written.append(&mut log, OutputStream::Stdout, 50_000);
    }
    let end = log.end_offset();
    drop(log);
    let is_tail = |name: &segment::SegmentName| name.part == segment::Part::Tail;
    let names = segment::list(home.path()).unwrap();
    let first = names.into_iter().find(is_tail).unwrap();
    let start = first.start - 100;
    let gone = segment::SegmentName { start, ..first };
    std::os::unix::fs::symlink("nowhere", gone.path(home.path())).unwrap();
    let mut reader = OutputReader::open(home.path(), cap).unwrap();
    assert_eq!(
        read_all(&mut reader, &written, 0, 1 << 20),
        expected_gap(end, cap)
    );
}

fn name_of(path: &Path) -> segment::SegmentName {
    let names = segment::list(path.parent().unwrap()).unwrap();
    let named = |name: &&segment::SegmentName| name.path(path.parent().unwrap()) == path;
    *names.iter().find(named).unwrap()
}

#[test]
fn readers_in_other_threads_see_every_byte_of_a_growing_log_in_order() {
    const TOTAL: u64 = 3_000_000;
    let home = tempfile::tempdir().unwrap();
    let mut log = OutputLog::create(home.path(), 16 << 20);
    let mut reader = log.reader();
    let mut end = log.watch();
    let follower = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut next = 0;
            while next < TOTAL {
                match reader.next(next, 10_000).unwrap() {
                    Piece::Chunk { bytes, .. } => {
                        assert_eq!(bytes, content(next, bytes.len()));
                        next += bytes.len() as u64;
                    }
                    Piece::End => end.changed().await.unwrap(),
                    Piece::Gap { .. } => panic!("nothing was dropped"),
                }
            }
        });
    });
    let mut size = 1;
    while log.end_offset() < TOTAL {
        let from = log.end_offset();
        size = (size * 7) % 1013;
        let length = size.min((TOTAL - from) as usize);
        log.append(stream_of(size % 3 == 0), &content(from, length))
            .unwrap();
    }
    follower.join().unwrap();
}

#[test]
fn a_flipped_bit_is_damage_to_a_reader_and_the_end_to_a_writer() {
    let home = tempfile::tempdir().unwrap();
    let mut log = OutputLog::create(home.path(), 1 << 20);
    let mut written = Written::default();
    written.append(&mut log, OutputStream::Stdout, 1000);
    written.append(&mut log, OutputStream::Stderr, 1000);
    drop(log);
    let path = &files(home.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[1000 + 2 * HEADER_BYTES as usize + 500] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let mut reader = OutputReader::open(home.path(), 1 << 20).unwrap();
    let error = reader.next(1000, 5000).unwrap_err();
    assert!(
        matches!(error, OutputError::Damaged { offset: 1000, .. }),
        "{error}"
    );
    let log = OutputLog::open(home.path(), 1 << 20).unwrap();
    assert_eq!(log.end_offset(), 1000);
}

#[test]
fn reading_a_removed_log_fails_instead_of_waiting() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("log");
    let mut log = OutputLog::create(&directory, 1 << 20);
    log.append(OutputStream::Stdout, b"hello").unwrap();
    let mut reader = log.reader();
    remove(&directory).unwrap();
    let error = reader.next(0, 10).unwrap_err();
    assert!(matches!(error, OutputError::Io { .. }), "{error}");
}

/// Prints what the machine gives; run it in release with `--nocapture`.
#[test]
fn throughput_is_measured() {
    let home = tempfile::tempdir().unwrap();
    for (chunk, cap) in [
        (64 << 10, 1 << 30),
        (64 << 10, 64 << 20),
        (256 << 10, 64 << 20),
    ] {
        let total: u64 = if cfg!(debug_assertions) {
            32 << 20
        } else {
            1 << 30
        };
        let directory = home.path().join(format!("{chunk}-{cap}"));
        let mut log = OutputLog::create(&directory, cap);
        let bytes = vec![0x5A; chunk];
        let start = std::time::Instant::now();
        while log.end_offset() < total {
            log.append(OutputStream::Stdout, &bytes).unwrap();
        }
        let took = start.elapsed();
        let rate = total as f64 / took.as_secs_f64() / 1e6;
        eprintln_figure(&format!(
            "append {chunk} B chunks, cap {cap}: {rate:.0} MB/s"
        ));
        let start = std::time::Instant::now();
        let (mut reader, mut next, mut read) = (log.reader(), 0, 0);
        loop {
            match reader.next(next, 256 << 10).unwrap() {
                Piece::Chunk { bytes, .. } => {
                    next += bytes.len() as u64;
                    read += bytes.len() as u64;
                }
                Piece::Gap { length, .. } => next += length,
                Piece::End => break,
            }
        }
        let rate = read as f64 / start.elapsed().as_secs_f64() / 1e6;
        eprintln_figure(&format!("read back: {rate:.0} MB/s"));
        assert_eq!(read, total.min(cap));
        remove(&directory).unwrap();
    }
}

#[allow(
    clippy::print_stderr,
    reason = "figures are for the person who runs the test"
)]
fn eprintln_figure(text: &str) {
    eprintln!("{text}");
}
