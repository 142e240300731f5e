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
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cofferdam_proto::compute::v1::compute_driver_client::ComputeDriverClient;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tonic::{Code, Request, Response, Status};

use super::notices::SLOW_AFTER;
use super::shared::{Link, Shared};
use super::status::Answer;
use super::{CallError, CallErrorKind, DriverState};
use crate::transport::Channel;

pub(super) type Client = ComputeDriverClient<Channel>;

/// First wait before a repetition; the contract's for `ABORTED`.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A call can learn of the end of its connection a moment before the connection does.
const CUT_NOTICE: Duration = Duration::from_millis(100);

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
        let waiting = Waiting::new(self.driver, &self.operation);
        let result = {
            let attempts = self.attempts(message, rpc, &waiting);
            tokio::pin!(attempts);
            tokio::select! {
                result = &mut attempts => result,
                () = sleep(SLOW_AFTER) => {
                    waiting.tell();
                    attempts.await
                }
            }
        };
        self.driver
            .judge(kind(&self.operation), result.as_ref().err());
        result
    }

    async fn attempts<M, R, F>(
        &self,
        message: M,
        rpc: impl Fn(Client, Request<M>) -> F,
        waiting: &Waiting<'_>,
    ) -> Result<R, CallError>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let started = waiting.since;
        let end = started + self.deadline;
        let unavailable_retry = self.deadline.min(self.driver.timing.unavailable_retry);
        let mut unavailable_end = started + unavailable_retry;
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
            let (mut error, again) = match was_cut(&link, &status).await {
                // What became of the attempt is not known; the next one finds out. Its driver is a new
                // one, whose platform has to be found first.
                true => {
                    let away = self.driver.timing.lost_wait();
                    unavailable_end = end.min(Instant::now() + away + unavailable_retry);
                    (self.cut(&link), Some((end, RETRY_MIN)))
                }
                false => {
                    let answer = Answer::of(&status);
                    let wait = answer.retry.unwrap_or(pause);
                    let until = match answer.code {
                        Code::Aborted => Some(end),
                        Code::Unavailable => Some(unavailable_end),
                        _ => None,
                    };
                    let name = self.driver.name.as_str();
                    let error = answer.into_error(name, &self.operation);
                    (error, until.map(|until| (until, wait)))
                }
            };
            ambiguous |= error.ambiguous;
            error.ambiguous = ambiguous;
            match again {
                Some((until, wait)) if Instant::now() + wait < until => {
                    tracing::debug!(driver.name = %self.driver.name, %error, "calling again");
                    waiting.again(&error);
                    sleep(wait).await;
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
        // Whoever has called a driver that died wants to know what became of it.
        let patience = match ambiguous {
            true => Instant::now() + self.driver.timing.lost_wait(),
            false => Instant::now() + self.driver.timing.reconnect_wait,
        };
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

    fn cut(&self, link: &Link) -> CallError {
        let (name, operation) = (&self.driver.name, &self.operation);
        let reason = link.channel.end_reason();
        CallError {
            kind: CallErrorKind::Unavailable,
            message: format!("driver {name}: {operation}: lost the driver: {reason}"),
            fix: String::new(),
            violations: Vec::new(),
            ambiguous: true,
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

/// What kind of call it is: the operation's first word.
fn kind(operation: &str) -> &str {
    operation.split(' ').next().unwrap_or(operation)
}

/// A call under way, for those who want to know what the driver is at. Until dropped.
struct Waiting<'a> {
    driver: &'a Shared,
    operation: &'a str,
    number: u64,
    since: Instant,
    /// Why the last attempt was not the last one.
    last: Mutex<String>,
}

impl<'a> Waiting<'a> {
    fn new(driver: &'a Shared, operation: &'a str) -> Self {
        Self {
            driver,
            operation,
            number: driver.number(),
            since: Instant::now(),
            last: Mutex::default(),
        }
    }

    /// It has waited for long. What waits for a driver that is not connected is not told: that
    /// driver's state says all.
    fn tell(&self) {
        let last = self.last.lock();
        let last = last.unwrap_or_else(PoisonError::into_inner).clone();
        self.driver.update(|view| {
            if view.state == DriverState::Connected {
                let Self { number, since, .. } = *self;
                view.notices.slow(number, self.operation, since, &last);
            }
        });
    }

    fn again(&self, error: &CallError) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone_from(&error.message);
        drop(last);
        if self.since.elapsed() >= SLOW_AFTER {
            self.tell();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.since.elapsed() >= SLOW_AFTER {
            self.driver.notice(|notices| notices.ended(self.number));
        }
    }
}

/// The connection ended under the call, or before it was sent. A status that came from the driver has
/// no source; one that was made here does, also when the driver only reset this one stream.
async fn was_cut(link: &Link, status: &Status) -> bool {
    std::error::Error::source(status).is_some()
        && timeout(CUT_NOTICE, link.channel.closed()).await.is_ok()
}
