//! Has the kernel killed for want of memory while a process ran? By its driver's count, where the
//! supervisor cannot tell.
//!
//! What the driver told last may be of seconds ago, and what was killed since then is an earlier
//! command's. So the driver is asked while the process is being started: nobody waits for the answer
//! until a process has ended as if killed.

use tokio::task::JoinSet;
use tracing::info;

use crate::driver::Driver;
use crate::sandbox::Sandbox;

/// What the driver had counted when the process was started.
#[derive(Debug, Default)]
pub(super) struct OomBaseline {
    /// At most one; it ends with its execution.
    asked: JoinSet<Option<u64>>,
}

impl OomBaseline {
    /// Begins to ask.
    pub(super) fn take(&mut self, count: impl Future<Output = Option<u64>> + Send + 'static) {
        self.asked = JoinSet::new();
        self.asked.spawn(count);
    }

    /// Whether there are more now. False if that is not to be known: unmeasured is not zero.
    pub(super) async fn grew(&mut self, count: impl Future<Output = Option<u64>>) -> bool {
        let Some(Ok(Some(before))) = self.asked.join_next().await else {
            return false;
        };
        count.await.is_some_and(|now| now > before)
    }
}

/// Who does not count need not be asked.
pub(super) fn is_counted(sandbox: &Sandbox) -> bool {
    let view = sandbox.view();
    let told = view.facts.observed.as_ref();
    told.is_some_and(|told| told.oom_kill_count.is_some())
}

/// As the driver counts now. None if that is not to be known.
pub(super) async fn count(driver: Option<Driver>, sandbox: Sandbox) -> Option<u64> {
    let driver = driver?;
    match driver.get(sandbox.id()).await {
        Ok(seen) => {
            let seen = seen?;
            let count = seen.oom_kill_count;
            sandbox.observed(&driver.view().incarnation, seen, None);
            count
        }
        Err(error) => {
            info!(sandbox.id = %sandbox.id(), %error, "cannot tell whether memory ran out");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn only_a_count_that_grew_since_the_start_counts() {
        for (before, now, grew) in [
            (Some(1), Some(2), true),
            (Some(2), Some(2), false),
            (None, Some(2), false),
            (Some(1), None, false),
        ] {
            let mut baseline = OomBaseline::default();
            baseline.take(ready(before));
            assert_eq!(
                baseline.grew(ready(now)).await,
                grew,
                "{before:?} to {now:?}"
            );
        }
        // Of an execution that an earlier gateway has started.
        assert!(!OomBaseline::default().grew(ready(Some(2))).await);
    }

    #[tokio::test]
    async fn a_driver_that_is_slow_to_answer_is_waited_for() {
        let (answer, answered) = oneshot::channel();
        let mut baseline = OomBaseline::default();
        baseline.take(async { answered.await.ok() });
        let mut grew = Box::pin(baseline.grew(ready(Some(4))));
        assert!(futures_util::poll!(&mut grew).is_pending());
        answer.send(3).expect("somebody waits");
        assert!(grew.await);
    }
}
