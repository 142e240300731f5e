//! The unified hierarchy.

use std::path::{Path, PathBuf};

use super::files::{self, keyed, number, read};
use super::{Bound, CgroupError, CgroupLimits, CgroupStats, PROGRAMS};

/// The CPU bandwidth period, the kernel's own default.
const PERIOD_USEC: u64 = 100_000;
/// The kernel's least quota.
const QUOTA_USEC_MIN: u64 = 1000;

/// Microseconds, of a period.
pub(super) const CPU_QUOTA: &str = "cpu.max";

/// Takes threads one by one, within their domain.
pub(super) const THREADS: &str = "cgroup.threads";

/// What a leaf needs its parent to hand down.
pub(super) const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// A cgroup whose children are sandboxes.
#[derive(Debug, Clone)]
pub(super) struct Parent {
    pub(super) dir: PathBuf,
    /// What it hands down.
    pub(super) controllers: Vec<String>,
}

impl Parent {
    /// Takes `dir` (made when missing) as the parent, and has it hand down whatever it can.
    pub(super) fn prepare(dir: PathBuf) -> Result<Self, CgroupError> {
        files::make(&dir)?;
        enable_controllers(&dir);
        let controllers = words(&dir, "cgroup.subtree_control");
        Ok(Parent { dir, controllers })
    }

    pub(super) fn lacks(&self, bound: Bound) -> Option<(String, String)> {
        let controller = match bound {
            Bound::Memory | Bound::Swap => "memory",
            Bound::Pids => "pids",
            Bound::Cpu => "cpu",
        };
        if self.controllers.iter().any(|has| has == controller) {
            return None;
        }
        let offered = words(&self.dir, "cgroup.controllers");
        Some(explain(&self.dir, controller, &offered))
    }

    pub(super) fn create(&self, name: &str, limits: &CgroupLimits) -> Result<(), CgroupError> {
        let dir = self.dir.join(name);
        files::make(&dir)?;
        let has = |bound| self.lacks(bound).is_none();
        if let Some(bytes) = limits.memory_bytes.filter(|_| has(Bound::Memory)) {
            files::write(&dir, "memory.max", &bytes.to_string())?;
            // Absent when the kernel was built or booted without swap accounting.
            if dir.join("memory.swap.max").exists() {
                files::write(&dir, "memory.swap.max", "0")?;
            }
        }
        if let Some(count) = limits.pids.filter(|_| has(Bound::Pids)) {
            files::write(&dir, "pids.max", &count.to_string())?;
        }
        if let Some(millis) = limits.cpu_millis.filter(|_| has(Bound::Cpu)) {
            let programs = make_programs(&dir)?;
            let quota = format!("{} {PERIOD_USEC}", quota_usec(millis));
            files::write(&programs, CPU_QUOTA, &quota)?;
        }
        Ok(())
    }
}

/// The group for what is run in the leaf. Its threads may be elsewhere than the rest of the leaf's,
/// which stays one domain: so the supervisor can stay in the leaf itself, although that hands a
/// controller down.
fn make_programs(leaf: &Path) -> Result<PathBuf, CgroupError> {
    let programs = make_threaded(leaf)?;
    files::write(leaf, "cgroup.subtree_control", "+cpu")?;
    Ok(programs)
}

fn make_threaded(leaf: &Path) -> Result<PathBuf, CgroupError> {
    let programs = leaf.join(PROGRAMS);
    files::make(&programs)?;
    files::write(&programs, "cgroup.type", "threaded")?;
    Ok(programs)
}

/// Whether a directory belongs to the unified hierarchy.
pub(super) fn is_v2(dir: &Path) -> bool {
    dir.join("cgroup.controllers").exists()
}

/// Every controller on its own: one that is refused must not take the others along.
pub(super) fn enable_controllers(dir: &Path) {
    let has = words(dir, "cgroup.subtree_control");
    for controller in words(dir, "cgroup.controllers") {
        if CONTROLLERS.contains(&&*controller) && !has.contains(&controller) {
            // What did not work shows in cgroup.subtree_control.
            let _ = files::write(dir, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
}

pub(super) fn quota_usec(millis: u64) -> u64 {
    (millis.saturating_mul(PERIOD_USEC) / 1000).max(QUOTA_USEC_MIN)
}

pub(super) fn words(dir: &Path, name: &str) -> Vec<String> {
    read(dir, name)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

pub(super) fn stats(dir: &Path) -> CgroupStats {
    let io = |key: &str| -> Option<u64> {
        let text = read(dir, "io.stat")?;
        let values = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(key));
        Some(values.filter_map(|value| value.parse::<u64>().ok()).sum())
    };
    CgroupStats {
        cpu_usec: keyed(dir, "cpu.stat", "usage_usec"),
        memory_bytes: number(dir, "memory.current"),
        memory_peak_bytes: number(dir, "memory.peak"),
        pids: number(dir, "pids.current"),
        io_read_bytes: io("rbytes="),
        io_write_bytes: io("wbytes="),
        oom_kills: keyed(dir, "memory.events", "oom_kill"),
    }
}

fn explain(dir: &Path, controller: &str, offered: &[String]) -> (String, String) {
    let dir = dir.display();
    if offered.iter().any(|has| has == controller) {
        return (
            format!(
                "{dir} does not hand down its {controller} controller, as it holds processes itself"
            ),
            "start the driver as a systemd unit with Delegate=yes, or name an empty cgroup in \
             cgroup_parent"
                .to_owned(),
        );
    }
    (
        format!("the {controller} controller is not available in {dir}"),
        format!(
            "have it delegated: 'Delegate=cpu memory pids' in the unit (for user services, in \
             user@.service); on a host that mounts {controller} as cgroup v1, boot with \
             systemd.unified_cgroup_hierarchy=1"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn fake(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn limits_become_the_kernels_words() {
        let dir = fake(&[
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.subtree_control", "cpu memory pids\n"),
            ("sbx/memory.max", ""),
            ("sbx/memory.swap.max", ""),
            ("sbx/pids.max", ""),
            ("sbx/cgroup.subtree_control", ""),
            ("sbx/programs/cgroup.type", ""),
            ("sbx/programs/cpu.max", ""),
        ]);
        let parent = Parent::prepare(dir.path().to_owned()).unwrap();
        let limits = CgroupLimits {
            memory_bytes: Some(1 << 20),
            pids: Some(64),
            cpu_millis: Some(1500),
        };
        parent.create("sbx", &limits).unwrap();
        let leaf = dir.path().join("sbx");
        assert_eq!(read(&leaf, "memory.max").unwrap(), "1048576");
        assert_eq!(read(&leaf, "memory.swap.max").unwrap(), "0");
        assert_eq!(read(&leaf, "pids.max").unwrap(), "64");
        // The supervisor is in the leaf, and not bounded.
        let programs = leaf.join(PROGRAMS);
        assert_eq!(read(&programs, "cpu.max").unwrap(), "150000 100000");
        assert_eq!(read(&programs, "cgroup.type").unwrap(), "threaded");
        assert_eq!(read(&leaf, "cgroup.subtree_control").unwrap(), "+cpu");
    }

    /// On hosts where v1 has all controllers, too: no limit is needed to see who is where.
    #[test]
    #[allow(clippy::print_stdout, reason = "a skip says why")]
    fn a_process_without_rights_moves_itself_with_a_file_that_was_opened_for_it() {
        use std::io::Write as _;
        use std::os::unix::process::CommandExt as _;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(root) = mounted.and_then(|line| line.split(' ').nth(4)) else {
            return println!("skipped: no cgroup2 is mounted");
        };
        let leaf = Path::new(root).join(format!("cofferdam-test-{}", std::process::id()));
        if !files::writable(Path::new(root)) {
            return println!("skipped: {root} cannot be written to");
        }
        files::make(&leaf).unwrap();
        let _removed = Removed(leaf.clone());
        let programs = make_threaded(&leaf).unwrap();
        let open = |path: PathBuf| fs::File::options().write(true).open(path).unwrap();
        let mut join = open(leaf.join(files::PROCS));
        let mut share = open(programs.join(THREADS));
        let mut command = std::process::Command::new("/bin/cat");
        command.arg("/proc/self/cgroup").uid(65534).gid(65534);
        let setup = move || join.write_all(b"0").and_then(|()| share.write_all(b"0"));
        #[allow(unsafe_code, reason = "runs between fork and exec")]
        // SAFETY: two system calls, in the child's own copy of the descriptors.
        let output = unsafe { command.pre_exec(setup) }.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let name = leaf.file_name().unwrap().to_str().unwrap();
        let expected = format!("0::/{name}/{PROGRAMS}\n");
        assert!(text.ends_with(&expected), "{text}");
    }

    /// A cgroup that goes with its test.
    struct Removed(PathBuf);

    impl Drop for Removed {
        fn drop(&mut self) {
            // What ran there has been waited for.
            let _ = files::try_remove(&self.0);
        }
    }

    #[test]
    fn a_missing_controller_is_explained_and_not_written() {
        let dir = fake(&[
            ("cgroup.controllers", "cpu pids\n"),
            ("cgroup.subtree_control", "pids\n"),
        ]);
        let parent = Parent {
            dir: dir.path().to_owned(),
            controllers: vec!["pids".to_owned()],
        };
        assert!(parent.lacks(Bound::Pids).is_none());
        assert!(
            parent
                .lacks(Bound::Memory)
                .unwrap()
                .0
                .contains("not available")
        );
        assert!(
            parent
                .lacks(Bound::Cpu)
                .unwrap()
                .0
                .contains("does not hand down")
        );
        parent
            .create(
                "sbx",
                &CgroupLimits {
                    memory_bytes: Some(1),
                    ..Default::default()
                },
            )
            .unwrap();
    }

    #[test]
    fn stats_are_read_and_unmeasured_is_not_zero() {
        let dir = fake(&[
            ("cpu.stat", "usage_usec 42\nuser_usec 1\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\n"),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=1 rios=1\n8:16 rbytes=5 wbytes=2 rios=1\n",
            ),
        ]);
        let stats = stats(dir.path());
        assert_eq!((stats.cpu_usec, stats.oom_kills), (Some(42), Some(2)));
        assert_eq!(
            (stats.io_read_bytes, stats.io_write_bytes),
            (Some(15), Some(3))
        );
        assert_eq!((stats.memory_bytes, stats.pids), (None, None));
    }

    #[test]
    fn a_quota_is_never_below_the_kernels_least() {
        assert_eq!(quota_usec(1), 1000);
        assert_eq!(quota_usec(500), 50_000);
    }
}
