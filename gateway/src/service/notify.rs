//! What systemd is told. Without systemd nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

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

/// Says "alive" twice per period, for as long as the runtime gets to it and the set is kept. An
/// empty set: nobody asks.
pub(super) fn keep_watchdog_fed() -> JoinSet<()> {
    let mut feeding = JoinSet::new();
    let Some(period) = sd_notify::watchdog_enabled() else {
        return feeding;
    };
    feeding.spawn(async move {
        let mut ticks = tokio::time::interval(period / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
    feeding
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
