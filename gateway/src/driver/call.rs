//! One call: its deadline, waiting for the driver, and when it is repeated.
//!
//! ```text
//!  wait for a connection ─► attempt ─► answer
//!        ▲                     │ connection cut, UNAVAILABLE, ABORTED: backoff, while there is time
//!        └─────────────────────┘ anything else: the end
//! ```
//!
//! Repeating is safe because by the contract every RPC may come twice.

use std::future::Future;
use std::time::Duration;

use cofferdam_proto::compute::v1::compute_driver_client::ComputeDriverClient;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Request, Response, Status};

use super::shared::{Link, Shared};
use super::status::Answer;
use super::{CallError, CallErrorKind, DriverState};
use crate::transport::Channel;

pub(super) type Client = ComputeDriverClient<Channel>;

/// First wait before a repetition; the contract's for `ABORTED`.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A call that is to be made.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) driver: &'a Shared,
    /// For messages: `create sbx-1`.
    pub(super) operation: String,
    /// For everything, retries included.
    pub(super) deadline: Duration,
}

impl Call<'_> {
    /// Makes it. A drop of the future cancels the RPC, which may have taken effect by then.
    pub(super) async fn run<M, R, F>(
        self,
        message: M,
        rpc: impl Fn(Client, Request<M>) -> F,
    ) -> Result<R, CallError>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let started = Instant::now();
        let end = started + self.deadline;
        let unavailable_end = started + self.deadline.min(self.driver.timing.unavailable_retry);
        let mut ambiguous = false;
        let mut pause = RETRY_MIN;
        loop {
            let link = (self.connection(end, ambiguous)).await?;
            let mut request = Request::new(message.clone());
            request.set_timeout(end.saturating_duration_since(Instant::now()));
            let outcome = timeout_at(end, rpc(link.client(), request)).await;
            let status = match outcome {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => return Err(self.timed_out()),
            };
            let answer = Answer::of(&status);
            let again = match was_cut(&link, &answer) {
                // What happened to the attempt is not known; the next one finds out.
                true => Some((end, RETRY_MIN)),
                false => match answer.code {
                    Code::Aborted => Some((end, answer.retry.unwrap_or(pause))),
                    Code::Unavailable => Some((unavailable_end, answer.retry.unwrap_or(pause))),
                    _ => None,
                },
            };
            let mut error = answer.into_error(self.driver.name.as_str(), &self.operation);
            ambiguous |= error.ambiguous;
            error.ambiguous = ambiguous;
            match again {
                Some((until, wait)) if Instant::now() + wait < until => {
                    tracing::debug!(driver.name = %self.driver.name, %error, "calling again");
                    sleep_until(Instant::now() + wait).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                _ => return Err(error),
            }
        }
    }

    /// The driver's connection, waited for if there is none.
    async fn connection(&self, end: Instant, ambiguous: bool) -> Result<Link, CallError> {
        let mut links = self.driver.links();
        let mut views = self.driver.views();
        let patience = Instant::now() + self.driver.timing.reconnect_wait;
        let limit = patience.min(end);
        loop {
            if let Some(link) = links.borrow_and_update().clone()
                && !link.channel.is_closed()
            {
                return Ok(link);
            }
            if views.borrow_and_update().state == DriverState::Refused {
                return Err(self.unreachable(ambiguous));
            }
            tokio::select! {
                Ok(()) = links.changed() => {}
                Ok(()) = views.changed() => {}
                () = sleep_until(limit) => return Err(self.unreachable(ambiguous)),
            }
        }
    }

    fn unreachable(&self, ambiguous: bool) -> CallError {
        let view = self.driver.view();
        let reason = match view.error.as_str() {
            "" => "it is not connected",
            error => error,
        };
        CallError {
            kind: CallErrorKind::Unreachable,
            message: format!("driver {}: {}: {reason}", view.name, self.operation),
            fix: view.fix.clone(),
            violations: Vec::new(),
            ambiguous,
        }
    }

    fn timed_out(&self) -> CallError {
        CallError {
            kind: CallErrorKind::Timeout,
            message: format!(
                "driver {}: {}: no answer within {:?}",
                self.driver.name, self.operation, self.deadline
            ),
            fix: String::new(),
            violations: Vec::new(),
            ambiguous: true,
        }
    }
}

/// The connection ended under the call, or before it was sent.
fn was_cut(link: &Link, answer: &Answer) -> bool {
    let by_transport = matches!(
        answer.code,
        Code::Unknown | Code::Cancelled | Code::Unavailable | Code::Internal
    );
    by_transport && link.channel.is_closed()
}
