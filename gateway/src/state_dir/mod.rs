//! The state directory as something that can run out: is there room, may it be written, and if
//! not, who is told what.
//!
//! ```text
//!  new work ── admit ─────┐
//!  output ──── room_for ──┴─ less than KEPT left, or read-only ──► Trouble, said once
//!  records ─── failed(full) ──► the reserve is given up, and the record is tried again
//!  anything ── wrote ──► room again? the reserve is taken anew, and it is said that work goes on
//! ```
//!
//! New work and output leave some room, and a reserve file holds some more against others who fill
//! the same file system: the records of what runs, and intents to stop and delete, which are what
//! makes room, can still be written.

mod reserve;
mod trouble;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::StatVfsMountFlags;
use tracing::{info, warn};

use reserve::Reserve;
pub use trouble::Trouble;

/// What new work and output leave free: the store's log at its usual length, twice.
pub const KEPT_BYTES: u64 = 8 << 20;
/// A look at the file system counts for this long, and for as many bytes as it has found.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Trouble that lasts is said again after this long.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The state directory. A handle; all clones mean the same one.
#[derive(Debug, Clone)]
pub struct StateDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    reserve: Option<Reserve>,
    trouble: Option<Standing>,
    /// Bytes that may be written before somebody has to look again.
    allowance: u64,
    looked: Option<Instant>,
}

/// Trouble that has not ended yet.
#[derive(Debug)]
struct Standing {
    trouble: Trouble,
    since: Instant,
    said: Instant,
}

impl StateDir {
    /// Of a gateway whose records outlive it: with a reserve for them.
    pub fn lasting(path: &Path) -> Self {
        Self::new(path, Some(Reserve::take(path)))
    }

    /// Of a gateway whose records are gone with it.
    pub fn temporary(path: &Path) -> Self {
        Self::new(path, None)
    }

    /// Is anything that is not on record lost?
    pub fn is_lasting(&self) -> bool {
        self.known().reserve.is_some()
    }

    fn new(path: &Path, reserve: Option<Reserve>) -> Self {
        Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                known: Mutex::new(Known {
                    reserve,
                    trouble: None,
                    allowance: 0,
                    looked: None,
                }),
            }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// May new work begin?
    pub fn admit(&self) -> Result<(), Trouble> {
        let mut known = self.known();
        self.look(&mut known)
    }

    /// May this much output be written? Cheap: it looks only now and then.
    pub fn room_for(&self, bytes: u64) -> Result<(), Trouble> {
        let mut known = self.known();
        let is_fresh = known.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if !is_fresh || known.allowance < bytes || known.trouble.is_some() {
            self.look(&mut known)?;
        }
        known.allowance = known.allowance.saturating_sub(bytes);
        Ok(())
    }

    /// Something could not be written. Says so, but not each time.
    pub fn failed(&self, trouble: &Trouble) {
        self.begin(&mut self.known(), trouble);
    }

    /// Something was written: is the trouble over?
    pub fn wrote(&self) {
        let mut known = self.known();
        if known.trouble.is_none() || self.look(&mut known).is_err() {
            return;
        }
        if let Some(reserve) = &mut known.reserve {
            reserve.retake();
        }
        if let Some(standing) = known.trouble.take() {
            info!(
                state_dir = %self.inner.path.display(),
                lasted = ?standing.since.elapsed(),
                "the state directory takes what is written again; work goes on"
            );
        }
    }

    /// Gives the reserve up for a record that has to be written. False: there is none.
    pub fn release_reserve(&self) -> bool {
        let mut known = self.known();
        known.reserve.as_mut().is_some_and(Reserve::release)
    }

    /// What is wrong now.
    pub fn trouble(&self) -> Option<Trouble> {
        let mut known = self.known();
        match self.look(&mut known) {
            Err(trouble) => Some(trouble),
            Ok(()) => known
                .trouble
                .as_ref()
                .map(|standing| standing.trouble.clone()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.inner
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, known: &mut Known) -> Result<(), Trouble> {
        let path = &self.inner.path;
        let Ok(seen) = rustix::fs::statvfs(path) else {
            // Whoever writes will be told more than this call can say.
            return Ok(());
        };
        known.looked = Some(Instant::now());
        if seen.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let trouble = Trouble::ReadOnly { path: path.clone() };
            self.begin(known, &trouble);
            return Err(trouble);
        }
        let left_bytes = seen.f_bavail.saturating_mul(seen.f_frsize);
        let missing = known.reserve.as_ref().map_or(0, Reserve::missing_bytes);
        let wanted = match known.trouble {
            // It is over only when the reserve can be had again, too.
            Some(_) => KEPT_BYTES + missing,
            None => KEPT_BYTES,
        };
        // Some file systems do not say how large they are.
        if seen.f_blocks > 0 && left_bytes < wanted {
            let trouble = Trouble::Full {
                path: path.clone(),
                left_bytes: Some(left_bytes),
            };
            known.allowance = 0;
            self.begin(known, &trouble);
            return Err(trouble);
        }
        known.allowance = match seen.f_blocks {
            0 => u64::MAX,
            _ => left_bytes - wanted,
        };
        Ok(())
    }

    fn begin(&self, known: &mut Known, trouble: &Trouble) {
        let now = Instant::now();
        let is_news = match &known.trouble {
            Some(standing) => {
                !standing.trouble.is_like(trouble) || standing.said.elapsed() >= SAY_EVERY
            }
            None => true,
        };
        if is_news {
            warn!(
                trouble = %trouble,
                fix = trouble.hint(),
                "new work is refused and output waits"
            );
        }
        let (since, said) = match &known.trouble {
            Some(standing) if is_news => (standing.since, now),
            Some(standing) => (standing.since, standing.said),
            None => (now, now),
        };
        known.trouble = Some(Standing {
            trouble: trouble.clone(),
            since,
            said,
        });
    }
}

#[cfg(test)]
mod tests;
