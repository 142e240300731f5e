//! Follows one sandbox until it is over, and reports every change.
//!
//! ```text
//!   running   wait on the shim's socket until this boot has ended
//!   stopped   wait for the shim's end, or for a start
//!   half-made look again soon
//!   ended, lost, removed ─► done
//! ```

use std::sync::Arc;
use std::time::Duration;

use cofferdam_driver_sdk::Context;
use tokio::time::sleep;

use crate::launch::Observation;
use crate::tracked::Tracked;

/// How old the counters in a report may be while nothing else happens.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Between two looks at something that ends in its own time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Watches it in the background, unless somebody does already.
pub(crate) fn spawn(context: &Context, tracked: &Arc<Tracked>) {
    spawn_after(context, tracked, None);
}

/// The same, after it has been seen, and reported, like that.
pub(crate) fn spawn_after(context: &Context, tracked: &Arc<Tracked>, seen: Option<Observation>) {
    if !tracked.begin_watching() {
        return;
    }
    let (context, tracked) = (context.clone(), Arc::clone(tracked));
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = follow(&context, &tracked, seen) => {}
            () = context.shutdown.cancelled() => {}
        }
        tracked.end_watching();
    });
}

async fn follow(context: &Context, tracked: &Tracked, mut seen: Option<Observation>) {
    let shim = tracked.control();
    loop {
        // Registered before the look: news that comes in between is not lost. (What has happened to
        // a running one since it was seen, its shim says.)
        let news = tracked.news.notified();
        let look = || Some(tracked.look(&context.observations)?.1);
        let Some(observation) = seen.take().or_else(look) else {
            return;
        };
        match observation {
            Observation::Ended | Observation::Lost => return,
            Observation::Running(run) => tokio::select! {
                ended = shim.wait(run.generation, REFRESH_INTERVAL) => {
                    if ended.is_err() {
                        // Time for a refresh; or the shim is going, and its end shows soon.
                        sleep(LOOK_AGAIN).await;
                    }
                }
                () = news => {}
            },
            Observation::Stopped => tokio::select! {
                () = sleep(REFRESH_INTERVAL) => {}
                () = news => {}
            },
            Observation::HalfMade => tokio::select! {
                () = sleep(LOOK_AGAIN) => {}
                () = news => {}
            },
        }
    }
}
