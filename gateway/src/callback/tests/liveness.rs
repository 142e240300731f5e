//! When a session is taken for dead. Time stands still until nothing else is left to do.

use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;

/// A session, and how long it lasts when its supervisor behaves as told.
async fn lasts(calls: usize, freeze: bool) -> Option<Duration> {
    let setup = Setup::new().await;
    let mut supervisor = setup.connect().await;
    let next = supervisor.prove(SANDBOX, &setup.token).await;
    supervisor.send_ready(&next).await;
    let frozen = Arc::new(Notify::new());
    let freezing = frozen.clone();
    tokio::spawn(async move { supervisor.answer(calls, freezing.notified()).await });
    let session = setup.session().await;
    let started = Instant::now();
    if freeze {
        frozen.notify_one();
    }
    let ended = timeout(Duration::from_secs(600), session.closed()).await;
    ended.is_ok().then(|| started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_supervisor_answers_lasts() {
    assert_eq!(lasts(usize::MAX, false).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_freezes_is_noticed_within_seconds() {
    let after = lasts(usize::MAX, true).await.expect("noticed");
    assert!((15..=25).contains(&after.as_secs()), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_calls_stand_still_has_a_minute() {
    let after = lasts(1, false).await.expect("noticed");
    assert!((60..=75).contains(&after.as_secs()), "{after:?}");
}
