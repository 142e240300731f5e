//! Waiting for children: shims when their trees have ended, and orphans of trees whose shim was killed.
//!
//! Everything here runs on the main thread. A shim is registered in the same breath as it is made,
//! so that it cannot be reaped unknown.
#![allow(unsafe_code, reason = "wait4 writes to memory")]

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::process::Stacks;
use crate::signal::{self, Signal};

/// How a process ended, as the kernel tells its parent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WaitStatus {
    pub(crate) status: i32,
    pub(crate) user_us: u64,
    pub(crate) system_us: u64,
    pub(crate) max_rss_kib: u64,
}

/// Ends of unknown children that are remembered, until their process learns that its shim is gone.
const RECENT_MAX: usize = 1024;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reaper(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    shims: HashMap<i32, Shim>,
    adopted: HashMap<i32, oneshot::Sender<WaitStatus>>,
    recent: VecDeque<(i32, WaitStatus)>,
    shim_count: watch::Sender<usize>,
}

/// Whether a shim is there, and if not, what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShimLife {
    Alive,
    /// It had nobody left to wait for.
    Finished,
    /// Whoever was below it is below the supervisor now.
    Killed,
}

#[derive(Debug)]
struct Shim {
    life: watch::Sender<ShimLife>,
    stacks: Option<Stacks>,
}

impl Reaper {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a shim and knows it, while nobody can look in between.
    pub(crate) fn register<E>(
        &self,
        make: impl FnOnce() -> Result<i32, E>,
    ) -> Result<(i32, watch::Receiver<ShimLife>), E> {
        let mut known = self.known();
        let pid = make()?;
        let (life, receiver) = watch::channel(ShimLife::Alive);
        known.shims.insert(pid, Shim { life, stacks: None });
        known.shim_count.send_replace(known.shims.len());
        Ok((pid, receiver))
    }

    /// The stacks that a shim runs on, to be freed after it. Its child must have left them.
    pub(crate) fn keep_stacks(&self, shim: i32, stacks: Stacks) {
        if let Some(shim) = self.known().shims.get_mut(&shim) {
            shim.stacks = Some(stacks);
        }
    }

    /// The pids of all shims.
    pub(crate) fn shims(&self) -> HashSet<i32> {
        self.known().shims.keys().copied().collect()
    }

    /// Waits until there is no shim, and so no process.
    pub(crate) async fn childless(&self) {
        let mut count = self.known().shim_count.subscribe();
        // The sender is as old as we are.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// Waits for a process whose shim was killed, so that it is our own child now. An error if it is
    /// not: then nobody can know any more how it ended.
    pub(crate) fn adopt(&self, pid: i32) -> oneshot::Receiver<WaitStatus> {
        let (sender, receiver) = oneshot::channel();
        let mut known = self.known();
        match known.recent.iter().find(|(recent, _)| *recent == pid) {
            // The receiver is right here.
            Some((_, status)) => drop(sender.send(*status)),
            None if is_child(pid) => drop(known.adopted.insert(pid, sender)),
            None => drop(sender),
        }
        receiver
    }

    /// Reaps whatever has ended, and lets shims that were stopped go on.
    pub(crate) fn reap(&self) {
        while let Some((pid, status)) = wait_for_any() {
            let mut known = self.known();
            if libc::WIFSTOPPED(status.status) {
                if known.shims.contains_key(&pid) {
                    // Somebody in the sandbox wants it not to tell. It goes on.
                    let _ = signal::send(pid, Signal::CONTINUE);
                }
                continue;
            }
            if let Some(shim) = known.shims.remove(&pid) {
                shim.life.send_replace(life_of(status.status));
                known.shim_count.send_replace(known.shims.len());
            } else if let Some(sender) = known.adopted.remove(&pid) {
                // The process's task may have ended meanwhile.
                let _ = sender.send(status);
            } else {
                if known.recent.len() == RECENT_MAX {
                    known.recent.pop_front();
                }
                known.recent.push_back((pid, status));
            }
        }
    }
}

fn life_of(status: i32) -> ShimLife {
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
        ShimLife::Finished
    } else {
        ShimLife::Killed
    }
}

fn is_child(pid: i32) -> bool {
    let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG | libc::__WALL;
    let Ok(id) = libc::id_t::try_from(pid) else {
        return false;
    };
    // SAFETY: no result is asked for.
    unsafe { libc::waitid(libc::P_PID, id, std::ptr::null_mut(), options) == 0 }
}

fn wait_for_any() -> Option<(i32, WaitStatus)> {
    let mut status = 0;
    // SAFETY: a zeroed rusage is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let options = libc::WNOHANG | libc::WUNTRACED | libc::__WALL;
    // SAFETY: both are ours.
    let pid = unsafe { libc::wait4(-1, &mut status, options, &mut usage) };
    if pid <= 0 {
        return None;
    }
    let microseconds = |time: libc::timeval| (time.tv_sec as u64) * 1_000_000 + time.tv_usec as u64;
    let status = WaitStatus {
        status,
        user_us: microseconds(usage.ru_utime),
        system_us: microseconds(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss as u64,
    };
    Some((pid, status))
}
