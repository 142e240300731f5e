//! Waiting for facts, for as long as is bearable, and the wall clock, by which deadlines go.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks at something for so long.
#[derive(Debug)]
pub(crate) struct Looks {
    end: Instant,
    is_first: bool,
}

impl Looks {
    pub(crate) fn within(patience: Duration) -> Self {
        Self {
            end: Instant::now() + patience,
            is_first: true,
        }
    }

    /// Waits until it is worth looking again. False when the time has passed.
    pub(crate) async fn again(&mut self) -> bool {
        if !std::mem::take(&mut self.is_first) {
            sleep(INTERVAL).await;
        }
        Instant::now() < self.end
    }
}

/// Lets time pass, where it is time that is tried.
pub(crate) async fn pause(time: Duration) {
    sleep(time).await;
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// Sleeps until a time of the wall clock.
pub(crate) async fn until_wall_clock(time_ms: u64) {
    while now_ms() < time_ms {
        let left = Duration::from_millis(time_ms - now_ms());
        sleep(left.min(Duration::from_millis(250))).await;
    }
}
