//! What `/proc` says about processes of the host.

use std::collections::HashMap;
use std::fs;

/// All processes that descend from this one, children before grandchildren.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in all() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut pending = vec![ancestor];
    while let Some(pid) = pending.pop() {
        for child in children.remove(&pid).into_iter().flatten() {
            found.push(child);
            pending.push(child);
        }
    }
    found
}

/// Every process that can be seen.
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Its control groups, one for each hierarchy; none once it has gone.
pub fn groups(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.map(str::to_owned).collect()
}

/// The arguments, joined by spaces; empty for a zombie or one that has gone.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\0').replace('\0', " ")
}

/// A line of `/proc/PID/status`, without its title.
pub fn status(pid: u32, title: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name == title).then(|| value.trim().to_owned())
    })
}

/// The most memory that it ever had resident, in bytes; none once it has ended.
pub fn memory_peak_bytes(pid: u32) -> Option<u64> {
    let text = status(pid, "VmHWM")?;
    let kib: u64 = text.trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Processes whose arguments hold this text.
pub fn with_argument(text: &str) -> Vec<u32> {
    let mut found = all();
    found.retain(|pid| command_line(*pid).contains(text));
    found
}

/// True for one that has not ended, or whose end nobody has asked for yet.
pub fn exists(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

/// For people: who is this?
pub fn describe(pid: u32) -> String {
    let name = status(pid, "Name").unwrap_or_default();
    let state = status(pid, "State").unwrap_or_default();
    format!("{pid} {name} ({state}): {}", command_line(pid))
}

/// Who started it, or whoever took it over; none once it has gone.
pub fn parent(pid: u32) -> Option<u32> {
    status(pid, "PPid")?.parse().ok()
}
