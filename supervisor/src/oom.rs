//! How often the kernel has killed in this sandbox for want of memory.
//!
//! The count is the control group's. A driver hands its file in; a container shows it below its own
//! `/sys/fs/cgroup`. Where neither is so nothing is counted, which is not the same as zero.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `memory.events` and `memory.oom_control` are shorter.
const COUNTER_BYTES_MAX: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct OomCounter(Option<File>);

/// What is counted from a moment on.
#[derive(Debug)]
pub(crate) struct OomWatch {
    counter: Arc<OomCounter>,
    before: Option<u64>,
}

impl OomCounter {
    /// `handed`: by the driver. What cannot be counted with is none.
    pub(crate) fn new(handed: Option<OwnedFd>) -> Self {
        let counter = match handed {
            Some(fd) => Self(Some(fd.into())),
            // Only as PID 1 it is known to share its group with nobody but this sandbox.
            None if std::process::id() == 1 => Self(find()),
            None => Self::default(),
        };
        counter.read().map_or_else(Self::default, |_| counter)
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// The kernel counts before it kills, so the end of a process is behind its count.
    fn read(&self) -> Option<u64> {
        let mut text = [0; COUNTER_BYTES_MAX];
        let length = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        count(&text[..length])
    }
}

impl OomWatch {
    pub(crate) fn begin(counter: &Arc<OomCounter>) -> Self {
        Self {
            counter: Arc::clone(counter),
            before: counter.read(),
        }
    }

    /// Since the beginning.
    pub(crate) fn kills(&self) -> Option<u64> {
        Some(self.counter.read()?.saturating_sub(self.before?))
    }
}

/// The line `oom_kill N`, which both versions of control groups have.
fn count(text: &[u8]) -> Option<u64> {
    let line = text
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"oom_kill "))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

fn find() -> Option<File> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    candidates(&mounts, &own)
        .into_iter()
        .find_map(|path| File::open(path).ok())
}

/// Where the own group's counter may be seen. `own` is `/proc/self/cgroup`.
fn candidates(mounts: &str, own: &str) -> Vec<PathBuf> {
    mounts
        .lines()
        .filter_map(|line| candidate(line, own))
        .collect()
}

fn candidate(line: &str, own: &str) -> Option<PathBuf> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, mount_point) = (left.next()?, Path::new(left.next()?));
    let mut right = right.split(' ');
    let (controller, file) = match right.next()? {
        "cgroup2" => ("", "memory.events"),
        "cgroup" if right.nth(1)?.split(',').any(|name| name == "memory") => {
            ("memory", "memory.oom_control")
        }
        _ => return None,
    };
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let is_it = fields.next()?.split(',').any(|name| name == controller);
        fields.next().filter(|_| is_it)
    })?;
    // A mount that does not show the own group shows another's.
    let below = Path::new(path).strip_prefix(root).ok()?;
    Some(mount_point.join(below).join(file))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn both_versions_are_read() {
        let v1 = b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let v2 = b"low 0\nhigh 0\nmax 7\noom 6\noom_kill 5\noom_group_kill 4\n";
        assert_eq!((count(v1), count(v2)), (Some(3), Some(5)));
        assert_eq!((count(b""), count(b"oom_kill x\n")), (None, None));
    }

    #[test]
    fn only_what_comes_after_the_beginning_counts() {
        let mut file = tempfile::tempfile().expect("temporary file");
        let mut write = |text: &[u8]| {
            file.set_len(0).expect("emptied");
            file.write_all(text).expect("written");
            std::io::Seek::rewind(&mut file).expect("rewound");
            file.try_clone().expect("a copy")
        };
        let handed = write(b"oom_kill 2\n");
        let counter = Arc::new(OomCounter::new(Some(handed.into())));
        let watch = OomWatch::begin(&counter);
        assert_eq!(watch.kills(), Some(0));
        write(b"oom_kill 3\n");
        assert_eq!(watch.kills(), Some(1));
        assert_eq!(OomWatch::begin(&counter).kills(), Some(0));
    }

    #[test]
    fn what_cannot_be_counted_is_not_zero() {
        let null = File::open("/dev/null").expect("opened");
        let counter = Arc::new(OomCounter::new(Some(null.into())));
        assert!(!counter.is_there());
        assert_eq!(OomWatch::begin(&counter).kills(), None);
    }

    #[test]
    fn a_container_finds_its_own_group_and_no_other() {
        let private = "\
30 20 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate
31 20 0:27 / /proc rw - proc proc rw
";
        let found = candidates(private, "0::/\n");
        assert_eq!(found, [Path::new("/sys/fs/cgroup/memory.events")]);

        let split = "\
34 30 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory
35 30 0:31 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids
";
        let found = candidates(split, "5:pids:/docker/abc\n4:memory:/docker/abc\n");
        let expected = Path::new("/sys/fs/cgroup/memory/memory.oom_control");
        assert_eq!(found, [expected]);

        let whole = "34 30 0:30 / /sys/fs/cgroup ro - cgroup cgroup rw,memory\n";
        let found = candidates(whole, "4:memory:/docker/abc\n");
        let expected = Path::new("/sys/fs/cgroup/docker/abc/memory.oom_control");
        assert_eq!(found, [expected]);
        let other = "34 30 0:30 /other /sys/fs/cgroup ro - cgroup cgroup rw,memory\n";
        assert!(candidates(other, "4:memory:/docker/abc\n").is_empty());
    }
}
