//! What this host shows of a driver's doings to anybody who looks: processes and mounts. A driver may
//! be on another host, or its processes somebody else's: then there is nothing to be seen.

use std::path::{Path, PathBuf};

/// A process, as `/proc` shows it.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    directory: PathBuf,
}

/// All of them; none where there is no `/proc`.
pub(crate) fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        let directory = entry.path();
        Some(Process { pid, directory })
    });
    processes.collect()
}

impl Process {
    /// Empty if it has ended meanwhile, or is none of ours.
    pub(crate) fn arguments(&self) -> Vec<u8> {
        self.read("cmdline")
    }

    /// The same.
    pub(crate) fn environment(&self) -> Vec<u8> {
        self.read("environ")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.directory.join(name)).unwrap_or_default()
    }
}

/// Mounts and processes that still name something below this directory.
pub(crate) fn traces(directory: &Path) -> Vec<String> {
    let name = directory.to_string_lossy();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains(&*name));
    let mounts = mounts.map(|line| format!("a mount: {line}"));
    let processes = processes().into_iter().filter_map(|process| {
        let arguments = process.arguments();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let names_it = process.pid != std::process::id() && arguments.contains(&*name);
        names_it.then(|| format!("process {}: {}", process.pid, arguments.trim_end()))
    });
    mounts.chain(processes).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_process_that_names_a_directory_is_a_trace_of_it() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(traces(directory.path()), Vec::<String>::new());
        let mut child = Command::new("tail")
            .args(["-f", "/dev/null"])
            .arg(directory.path().join("x"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A process that has just begun to run a program has no arguments for a moment.
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut found = traces(directory.path());
        while found.is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
            found = traces(directory.path());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("process {}: tail -f", child.id())));
    }
}
