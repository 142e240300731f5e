//! Follows a sandbox until it is over, so that every change is told when it happens, and not only
//! when somebody asks.
//!
//! REPLACE: where the platform has events of its own, one task that reads them for all sandboxes
//! does the same. Look again after every reconnect: what happened meanwhile was not told.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_driver_sdk::Context;
use cofferdam_driver_sdk::proto::SandboxState;
use tokio::time::sleep;

use crate::keeper::deadline;
use crate::platform::{self, Observation};
use crate::sandbox::Tracked;

/// While it is being made.
const SOON: Duration = Duration::from_millis(50);
/// A keeper's end wakes the watcher; this is for what nobody has thought of.
const LATER: Duration = Duration::from_secs(60);

/// Watches it in the background, unless somebody does already.
pub(crate) fn spawn(context: &Context, tracked: &Arc<Tracked>) {
    if !tracked.begin_watching() {
        return;
    }
    let (context, tracked) = (context.clone(), Arc::clone(tracked));
    context.tasks.clone().spawn(async move {
        tokio::select! {
            () = follow(&context, &tracked) => {}
            () = context.shutdown.cancelled() => {}
        }
        tracked.end_watching();
    });
}

async fn follow(context: &Context, tracked: &Tracked) {
    loop {
        // Registered before the look: news that come in between are not lost.
        let news = tracked.news.notified();
        let Some((sandbox, observation)) = tracked.look(&context.observations) else {
            return;
        };
        let is_final = sandbox.state() == SandboxState::FailedState;
        match observation {
            Observation::Ended(..) if is_final => return,
            Observation::Running(boot) => tokio::select! {
                _ = platform::ended(&tracked.dir, &boot, LATER) => {}
                () = news => {}
            },
            // It is over for good soon, which is news.
            Observation::Ended(..) if sandbox.state() == SandboxState::Deleting => news.await,
            // One that is stopped fails then; what runs is ended by its keeper.
            Observation::Ended(..) => tokio::select! {
                () = deadline(tracked.record().plan.expire_time_unix_ms) => {}
                () = news => {}
            },
            Observation::Absent => tokio::select! {
                () = sleep(SOON) => {}
                () = news => {}
            },
        }
    }
}
