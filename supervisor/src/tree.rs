//! Process trees, from `/proc`: who descends from whom, and how to end all of them.
//!
//! A tree is ended by stopping it first. A stopped process cannot fork, so once a look finds nobody
//! that still runs, the tree is whole and can be killed; killing a fork bomb one by one would only
//! make room for the rest.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::time::{Duration, Instant};

use rustix::thread::{Timespec, nanosleep};

use crate::reap::Reaper;
use crate::signal::{self, Signal};

/// How long to wait for everybody to stop; who sleeps in the kernel may not, and is killed anyway.
const STOP_PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000,
};

/// Where a tree hangs.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    /// Shims or processes. Their descendants are meant.
    pub(crate) above: Vec<i32>,
    /// A main process whose shim was killed, so that it hangs below the supervisor: itself is meant.
    pub(crate) lost: Option<i32>,
    /// Everything below the supervisor that is no shim, since it cannot be told whose it is.
    pub(crate) strays: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    pid: i32,
    parent: i32,
    /// As in `/proc/<pid>/stat`.
    state: u8,
    threads: u32,
}

impl Entry {
    /// A zombie whose other threads run on is no zombie.
    fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }

    fn is_halted(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

/// Sends a signal to all of a tree.
pub(crate) fn signal_all(roots: &Roots, reaper: &Reaper, signal: Signal) {
    for entry in members(roots, reaper) {
        // Gone, or not ours to signal: neither can be helped.
        let _ = signal::send(entry.pid, signal);
    }
}

/// Kills all of a tree and returns how many that were. Gives up after `patience`, which only
/// processes that sleep uninterruptibly in the kernel outlast.
pub(crate) fn kill_all(roots: &Roots, reaper: &Reaper, patience: Duration) -> u32 {
    let give_up = Instant::now() + patience;
    let mut killed = HashSet::new();
    stop_all(roots, reaper);
    loop {
        let members = members(roots, reaper);
        if members.is_empty() || Instant::now() > give_up {
            return u32::try_from(killed.len()).unwrap_or(u32::MAX);
        }
        for entry in members {
            if signal::send(entry.pid, Signal::KILL).is_ok() {
                killed.insert(entry.pid);
            }
        }
        // The kernel tells their parents, not us, so that there is nothing to wait on here.
        let _ = nanosleep(&PAUSE);
    }
}

fn stop_all(roots: &Roots, reaper: &Reaper) {
    let give_up = Instant::now() + STOP_PATIENCE;
    loop {
        let mut running = members(roots, reaper);
        running.retain(|entry| !entry.is_halted());
        if running.is_empty() || Instant::now() > give_up {
            return;
        }
        for entry in &running {
            let _ = signal::send(entry.pid, Signal::STOP);
        }
    }
}

/// The living members of a tree.
fn members(roots: &Roots, reaper: &Reaper) -> Vec<Entry> {
    let entries = scan();
    // After the look: a shim that it found is registered by now.
    let shims = reaper.shims();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    select(&entries, roots, &shims, own)
}

fn select(entries: &[Entry], roots: &Roots, shims: &HashSet<i32>, own: i32) -> Vec<Entry> {
    let mut children: HashMap<i32, Vec<&Entry>> = HashMap::with_capacity(entries.len());
    for entry in entries {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut found: Vec<Entry> = Vec::new();
    let mut pending: Vec<i32> = roots.above.clone();
    for entry in entries {
        let is_ours = entry.parent == own && !shims.contains(&entry.pid);
        if is_ours && (roots.strays || roots.lost == Some(entry.pid)) {
            found.push(*entry);
            pending.push(entry.pid);
        }
    }
    // A root may hang below another one; parents cannot form a ring, but a scan takes time and pids
    // are used again.
    let mut seen: HashSet<i32> = found.iter().map(|entry| entry.pid).collect();
    while let Some(parent) = pending.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if child.pid != own && seen.insert(child.pid) {
                found.push(**child);
                pending.push(child.pid);
            }
        }
    }
    found.retain(|entry| !entry.is_dead() && !shims.contains(&entry.pid));
    found
}

fn scan() -> Vec<Entry> {
    let Ok(directory) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut text = [0; 1024];
    directory
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
            let length = file.read(&mut text).ok()?;
            parse_stat(pid, text.get(..length)?)
        })
        .collect()
}

/// `pid (name) state parent …`; the name may hold anything, also parentheses.
fn parse_stat(pid: i32, text: &[u8]) -> Option<Entry> {
    let after_name = text.iter().rposition(|&byte| byte == b')')? + 1;
    let rest = std::str::from_utf8(text.get(after_name..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // The 20th field; two are before the name's end, two have been read.
    let threads = fields.nth(15)?.parse().ok()?;
    Some(Entry {
        pid,
        parent,
        state,
        threads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32) -> Entry {
        Entry {
            pid,
            parent,
            state: b'S',
            threads: 1,
        }
    }

    fn pids(entries: &[Entry], roots: &Roots, shims: &[i32]) -> Vec<i32> {
        let shims = shims.iter().copied().collect();
        let mut pids: Vec<i32> = select(entries, roots, &shims, 1)
            .iter()
            .map(|entry| entry.pid)
            .collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn a_tree_is_all_descendants_of_its_shim() {
        let all = [
            entry(1, 0),
            entry(2, 1),
            entry(3, 2),
            entry(4, 3),
            entry(5, 2),
            entry(6, 1),
            entry(7, 6),
        ];
        let roots = Roots {
            above: vec![2],
            lost: None,
            strays: false,
        };
        assert_eq!(pids(&all, &roots, &[2, 6]), [3, 4, 5]);
    }

    #[test]
    fn strays_are_what_hangs_below_the_supervisor_and_is_no_shim() {
        let all = [
            entry(1, 0),
            entry(2, 1),
            entry(3, 2),
            entry(8, 1),
            entry(9, 8),
        ];
        let roots = Roots {
            above: vec![],
            lost: Some(8),
            strays: true,
        };
        assert_eq!(pids(&all, &roots, &[2]), [8, 9]);
    }

    #[test]
    fn all_shims_as_roots_never_name_a_shim() {
        let all = [
            entry(1, 0),
            entry(2, 1),
            entry(3, 2),
            entry(4, 1),
            entry(5, 4),
        ];
        let roots = Roots {
            above: vec![1],
            lost: None,
            strays: true,
        };
        assert_eq!(pids(&all, &roots, &[2, 4]), [3, 5]);
    }

    #[test]
    fn zombies_are_dead_unless_they_have_threads() {
        let mut zombie = entry(3, 2);
        zombie.state = b'Z';
        let mut leaderless = entry(4, 2);
        leaderless.state = b'Z';
        leaderless.threads = 2;
        let roots = Roots {
            above: vec![2],
            lost: None,
            strays: false,
        };
        assert_eq!(pids(&[zombie, leaderless], &roots, &[2]), [4]);
    }

    #[test]
    fn names_may_hold_parentheses_and_spaces() {
        let line = b"42 (a) R 7 (b) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 99 0 0";
        let entry = parse_stat(42, line).expect("parses");
        assert_eq!(
            (entry.pid, entry.parent, entry.state, entry.threads),
            (42, 1, b'S', 3)
        );
    }

    #[test]
    fn this_test_finds_itself() {
        let own = i32::try_from(std::process::id()).expect("small");
        assert!(scan().iter().any(|entry| entry.pid == own));
    }
}
