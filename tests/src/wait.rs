//! Waiting for facts. The only place of the tests that sleeps.

use std::time::{Duration, Instant};

/// How long a fact may take to become true before a test fails: generous, because a loaded machine
/// is no fault of ours.
pub const PATIENCE: Duration = Duration::from_secs(30);

const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until there is an answer, or fails the test.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, &mut look).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"))
}

/// Waits until it is so, or fails the test.
#[track_caller]
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

/// Waits for an answer, but not longer than that.
pub fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        pause();
    }
}

/// Between two looks.
#[allow(
    clippy::disallowed_methods,
    reason = "facts about other processes have to be asked for again and again"
)]
pub fn pause() {
    std::thread::sleep(INTERVAL);
}

/// Lets a moment pass, for a test that interferes at different times. Not for waiting: nothing may be
/// taken for granted after it.
#[allow(
    clippy::disallowed_methods,
    reason = "the time is what is chosen here, not a fact that is waited for"
)]
pub fn a_while(time: Duration) {
    std::thread::sleep(time);
}

/// As [`until`], for questions that are asked across a network.
pub async fn until_async<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(INTERVAL).await;
    }
}
