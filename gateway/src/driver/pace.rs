//! How fast a driver is listened to.
//!
//! A whole host's sandboxes at once are heard at once; a driver that does not stop talking is heard
//! at a pace that costs the other drivers nothing, and waits in its own stream.

use std::time::Duration;

use tokio::time::Instant;

/// Changes in a second, for as long as it likes. Far above what a host's sandboxes do.
pub(super) const PER_SECOND: u32 = 1_000;

/// Changes at once: more than the sandboxes of the largest host, so that a snapshot does not wait.
const AT_ONCE: u32 = 20_000;

/// A bucket of words that may be said.
#[derive(Debug)]
pub(super) struct Pace {
    left: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            left: f64::from(AT_ONCE),
            at: Instant::now(),
        }
    }

    /// One more was said. How long to wait before the next one is listened to.
    pub(super) fn take(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let earned = (now - self.at).as_secs_f64() * f64::from(PER_SECOND);
        self.at = now;
        self.left = (self.left + earned).min(f64::from(AT_ONCE)) - 1.0;
        // Waiting a little longer for more of them is cheaper than waking for each.
        let missing = f64::from(PER_SECOND) / 10.0;
        (self.left < 0.0)
            .then(|| Duration::from_secs_f64((missing - self.left) / f64::from(PER_SECOND)))
    }

    /// It has not been in haste for a while.
    pub(super) fn is_calm(&self) -> bool {
        self.left > f64::from(PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_does_not_wait_and_a_flood_does() {
        let mut pace = Pace::new();
        for _ in 0..AT_ONCE {
            assert_eq!(pace.take(), None);
        }
        let begun = Instant::now();
        for _ in 0..10 * PER_SECOND {
            if let Some(wait) = pace.take() {
                tokio::time::sleep(wait).await;
            }
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((9.0..11.0).contains(&took), "{took}");
        assert!(!pace.is_calm());
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(pace.take(), None);
        assert!(pace.is_calm());
    }
}
