//! One task asks the driver what the platform is like; every stream shows the last answer.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::Server;
use crate::driver::{ComputeDriver, FINGERPRINT_INTERVAL};
use crate::error::DriverError;
use crate::proto::{FingerprintResponse, Health};

/// The contract allows one message a second.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A platform that says nothing for so long is not healthy.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The last answer; none while a new one is being asked for under new settings.
#[derive(Debug)]
pub(super) struct Fingerprints {
    last: watch::Sender<Option<FingerprintResponse>>,
    settings_changed: Notify,
}

impl Fingerprints {
    pub(super) fn new() -> Self {
        Self {
            last: watch::Sender::new(None),
            settings_changed: Notify::new(),
        }
    }

    /// What was known holds no more: streams wait for the next answer.
    pub(super) fn settings_changed(&self) {
        self.last.send_replace(None);
        self.settings_changed.notify_one();
    }

    /// The last answer at once, then every other one, at most one a second.
    pub(super) fn stream(
        &self,
    ) -> impl Stream<Item = Result<FingerprintResponse, DriverError>> + Send + use<> {
        let mut last = self.last.subscribe();
        async_stream::try_stream! {
            let mut shown = None;
            loop {
                let news = last.wait_for(|last| last.is_some() && *last != shown).await;
                let next = news.map(|news| news.clone());
                let next = next.map_err(|_closed| {
                    DriverError::unavailable("the driver is shutting down")
                })?;
                shown.clone_from(&next);
                if let Some(print) = next {
                    yield print;
                }
                // Cancelled here, nothing is lost: the next stream begins with the last answer.
                sleep(INTERVAL_MIN).await;
            }
        }
    }

    fn publish(&self, print: FingerprintResponse) {
        self.last.send_if_modified(|last| {
            let changed = last.as_ref() != Some(&print);
            if changed {
                *last = Some(print);
            }
            changed
        });
    }
}

impl<D: ComputeDriver> Server<D> {
    /// Asks at once, then regularly, and whenever the driver or new settings say so.
    pub(super) async fn poll_fingerprints(self) {
        let context = &self.0.context;
        let fingerprints = &self.0.fingerprints;
        let forever = async {
            loop {
                fingerprints.publish(self.ask_fingerprint().await);
                let gap = async {
                    sleep(INTERVAL_MIN).await;
                    tokio::select! {
                        () = sleep(FINGERPRINT_INTERVAL - INTERVAL_MIN) => {}
                        () = context.fingerprint_changed.notified() => {}
                    }
                };
                tokio::select! {
                    () = gap => {}
                    () = fingerprints.settings_changed.notified() => {}
                }
            }
        };
        tokio::select! {
            () = forever => {}
            () = context.shutdown.cancelled() => {}
        }
    }

    async fn ask_fingerprint(&self) -> FingerprintResponse {
        if !self.is_configured() {
            return unhealthy("the driver has not been given its settings yet (Configure)");
        }
        let asked = AssertUnwindSafe(self.0.driver.fingerprint()).catch_unwind();
        match timeout(ANSWER_MAX, asked).await {
            Ok(Ok(print)) => print,
            Ok(Err(_panic)) => unhealthy("the driver panicked while it looked at its platform"),
            Err(_elapsed) => unhealthy("the platform has not answered for 30 s"),
        }
    }
}

fn unhealthy(reason: &str) -> FingerprintResponse {
    FingerprintResponse {
        health: Health::Unhealthy.into(),
        reason: reason.to_owned(),
        ..FingerprintResponse::default()
    }
}
