//! Nothing that a case made outlives it, whatever became of the case.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::case::Stop;
use crate::driver::Driver;
use crate::subject::Made;
use crate::suite::Suite;

/// A supervisor that was left behind calls again within two seconds.
const STRAGGLER_PATIENCE: Duration = Duration::from_secs(3);

/// Deletes what the case has made and not deleted, and listens for who should be gone.
pub(super) async fn after_case(suite: &Suite, case: &str) {
    // A case that has failed may have left it dead.
    start_again(suite).await;
    let is_whole = delete_left(suite).await;
    if let Some(crash) = suite.crash(!is_whole).await {
        suite.add_leak(format!("while what {case} had made was deleted, {crash}"));
        start_again(suite).await;
    }
}

async fn start_again(suite: &Suite) {
    if let Some(program) = suite.program()
        && !program.is_started().await
        && let Err(problem) = program.start().await
    {
        suite.add_leak(format!("the driver does not start again: {problem}"));
    }
}

/// Whether all of it could be deleted.
async fn delete_left(suite: &Suite) -> bool {
    let made = suite.take_made();
    let mut is_whole = true;
    let mut by_gateway: BTreeMap<String, Vec<Made>> = BTreeMap::new();
    for one in made {
        by_gateway
            .entry(one.gateway_id.clone())
            .or_default()
            .push(one);
    }
    for (gateway_id, made) in by_gateway {
        match suite.driver_of(&gateway_id).await {
            Ok(driver) => is_whole &= delete_all(suite, &driver, made).await,
            Err(_) => {
                is_whole = false;
                let ids: Vec<_> = made.into_iter().map(|one| one.sandbox_id).collect();
                suite.add_leak(format!(
                    "the driver could not be reached to delete {}",
                    ids.join(", ")
                ));
            }
        }
    }
    is_whole
}

async fn delete_all(suite: &Suite, driver: &Driver, made: Vec<Made>) -> bool {
    let mut is_whole = true;
    for one in made {
        let sandbox_id = &one.sandbox_id;
        if let Err(refused) = driver.delete(sandbox_id).await {
            is_whole = false;
            suite.add_leak(format!("{sandbox_id} could not be deleted: {refused}"));
        }
        if let Some(callback) = &one.callback
            && let Err(Stop::Failed { seen, .. }) = callback.refuse().await
        {
            suite.add_leak(seen);
        }
        suite.add_gone(one);
    }
    is_whole
}

/// Sends away supervisors that live on though their sandboxes were deleted.
pub(super) async fn stragglers(suite: &Suite) {
    let gone = suite.gone();
    if gone.iter().any(|one| one.is_called() || one.has_outlived()) {
        // Each is told that its sandbox is gone, and ends itself.
        tokio::time::sleep(STRAGGLER_PATIENCE).await;
    }
}
