//! What the platform says of itself, as the script has it: instead of the truth, or in turn with it.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::sleep;
use tonic::Status;

use super::platform::Shared;
use super::script::{Health, HealthFaults};
use crate::proto::{self, FingerprintResponse};
use crate::server::ResponseStream;

/// `truth`, falsified while the script says so.
pub(super) fn falsify(
    live: Shared,
    mut truth: ResponseStream<FingerprintResponse>,
) -> ResponseStream<FingerprintResponse> {
    Box::pin(async_stream::stream! {
        let mut changes = live.changes();
        let mut last: Option<FingerprintResponse> = None;
        let mut lies = false;
        loop {
            let fault = changes.borrow_and_update().script.health.clone();
            let flap = fault.as_ref().and_then(|fault| fault.flap_ms);
            lies = fault.is_some() && (flap.is_none() || !lies);
            if let Some(last) = &last {
                yield Ok(match &fault {
                    Some(fault) if lies => falsified(last.clone(), fault),
                    _ => last.clone(),
                });
            }
            let turn = async {
                match flap {
                    Some(ms) => sleep(Duration::from_millis(ms)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                next = truth.next() => match next {
                    Some(Ok(next)) => last = Some(next),
                    Some(Err(status)) => {
                        yield Err::<FingerprintResponse, Status>(status);
                        return;
                    }
                    None => return,
                },
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
                () = turn, if last.is_some() => {}
            }
        }
    })
}

fn falsified(mut print: FingerprintResponse, fault: &HealthFaults) -> FingerprintResponse {
    print.set_health(match fault.is {
        Health::Undetected => proto::Health::Undetected,
        Health::Unhealthy => proto::Health::Unhealthy,
        Health::Healthy => proto::Health::Healthy,
    });
    print.reason.clone_from(&fault.reason);
    print.fix.clone_from(&fault.fix);
    print
}
