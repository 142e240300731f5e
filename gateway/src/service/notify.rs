//! What systemd is told. Without systemd nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

/// Beyond the patience: closing streams, drivers and the store.
const SHUTDOWN_RESERVE: Duration = Duration::from_secs(20);

pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

pub(super) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The unit's own stop timeout shall not cut the drain short.
pub(super) fn stopping(patience: Duration) {
    let extend = patience.saturating_add(SHUTDOWN_RESERVE).as_micros();
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("waiting for executions to end"),
        NotifyState::ExtendTimeoutUsec(u32::try_from(extend).unwrap_or(u32::MAX)),
    ]);
}

/// Says "alive" twice per period, for as long as the runtime gets to it. `None`: nobody asks.
pub(super) fn keep_watchdog_fed() -> Option<AbortOnDropHandle<()>> {
    let period = sd_notify::watchdog_enabled()?;
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(period / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    })))
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
