//! What the figures were measured on. Everything that cannot be found out is left out.

use std::fs;
use std::process::Command;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: Option<String>,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) distribution: Option<String>,
    pub(crate) virtualised: bool,
    pub(crate) uid: u32,
    /// Runnable processes, averaged over the last minute, when the run began.
    pub(crate) load_at_start: Option<f64>,
    pub(crate) load_at_end: Option<f64>,
    pub(crate) bubblewrap: Option<String>,
    pub(crate) docker: Option<String>,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self {
            kernel: format!("{} {}", kernel.trim(), std::env::consts::ARCH),
            cpu: field(&cpuinfo, "model name"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field(&meminfo, "MemTotal").and_then(|text| {
                let kib: u64 = text.trim_end_matches(" kB").parse().ok()?;
                Some(kib / 1024)
            }),
            distribution: release.lines().find_map(|line| {
                let name = line.strip_prefix("PRETTY_NAME=")?;
                Some(name.trim_matches('"').to_owned())
            }),
            virtualised: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            uid: rustix::process::getuid().as_raw(),
            load_at_start: load(),
            load_at_end: None,
            bubblewrap: version("bwrap"),
            docker: None,
        }
    }

    /// One line for people.
    pub(crate) fn headline(&self) -> String {
        format!(
            "{} x {}, {} MiB, Linux {}, {}{}, uid {}, load {}",
            self.cpus,
            self.cpu.as_deref().unwrap_or("cpu of unknown make"),
            self.memory_mib.unwrap_or_default(),
            self.kernel,
            self.distribution.as_deref().unwrap_or("unknown system"),
            if self.virtualised {
                " (virtual machine)"
            } else {
                ""
            },
            self.uid,
            self.load_at_start.unwrap_or_default(),
        )
    }

    /// Others use the machine: the figures are worse than they could be.
    pub(crate) fn is_busy(&self) -> bool {
        self.load_at_start
            .is_some_and(|load| load > self.cpus as f64 / 2.0)
    }
}

pub(crate) fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 1\nmodel name\t: A CPU: fast\n";
        assert_eq!(field(text, "model name").as_deref(), Some("A CPU: fast"));
        assert_eq!(field(text, "name"), None);
    }
}
