//! What /proc says about processes: memory, processor time, parents.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// What /proc counts in, whatever the kernel was configured with (proc(5): USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// Resident memory of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) rss_kib: u64,
    /// Shared pages divided among those who share them.
    pub(crate) pss_kib: u64,
}

/// None if the process is gone or not ours to look at.
pub(crate) fn memory(pid: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(Memory {
        rss_kib: kib(&text, "Rss")?,
        pss_kib: kib(&text, "Pss")?,
    })
}

pub(crate) fn rss_kib(pid: u32) -> Option<u64> {
    kib(&status(pid)?, "VmRSS")
}

/// The most it ever had.
pub(crate) fn peak_rss_kib(pid: u32) -> Option<u64> {
    kib(&status(pid)?, "VmHWM")
}

fn status(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

fn kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix(':')?;
        value.trim().trim_end_matches(" kB").parse().ok()
    })
}

/// User and system time of all its threads, of those that have ended too.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = cpu_ticks(&stat)?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = after_name(stat)?.skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

pub(crate) fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        parent_of(&stat) == Some(parent)
    };
    pids().filter(is_child).collect()
}

pub(crate) fn parent(pid: u32) -> Option<u32> {
    parent_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parent_of(stat: &str) -> Option<u32> {
    after_name(stat)?.nth(1)?.parse().ok()
}

/// The fields after the program's name, which may hold spaces and parentheses.
fn after_name(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

/// Processes whose program file lies below a directory.
pub(crate) fn running_from(directory: &Path) -> Vec<u32> {
    let is_from = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|program| program.starts_with(directory))
    };
    pids().filter(is_from).collect()
}

/// Processes of one program file.
pub(crate) fn running(program: &Path) -> Vec<u32> {
    running_from(program)
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 3 7 7 0 -1 4194304 1 2 3 4 50 25 8 9 20 0";
        assert_eq!(parent_of(stat), Some(3));
        assert_eq!(cpu_ticks(stat), Some(75));
    }

    #[test]
    fn memory_of_this_process_is_known() {
        let own = memory(std::process::id()).unwrap();
        assert!(own.rss_kib >= own.pss_kib && own.pss_kib > 0);
    }

    #[test]
    fn this_process_is_found_by_its_program() {
        let program = std::env::current_exe().unwrap();
        assert!(running(&program).contains(&std::process::id()));
    }
}
