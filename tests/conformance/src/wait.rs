//! The wall clock, by which deadlines go.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

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
