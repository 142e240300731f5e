//! How every call ends: by itself, at its deadline, by a panic, or with the process; and how its
//! error becomes a status. Nothing else makes one.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use crate::driver::DriverStream;
use crate::error::DriverError;

/// A stream as tonic wants it.
pub(crate) type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What ends a call from outside, and how its log lines are found.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) rpc: &'static str,
    /// The sandbox or snapshot that it is about; may be empty.
    pub(super) subject: String,
    pub(super) operation_id: String,
    pub(super) deadline: Option<Instant>,
    pub(super) shutdown: CancellationToken,
}

impl Bounds {
    /// Runs a call that has one answer. A shutdown does not cut it: draining waits for it.
    pub(super) async fn unary<T>(
        self,
        work: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<Response<T>, Status> {
        let begun = Instant::now();
        let result = tokio::select! {
            result = AssertUnwindSafe(work).catch_unwind() => {
                result.unwrap_or_else(|panic| Err(panicked(self.rpc, &*panic)))
            }
            () = passed(self.deadline) => Err(DriverError::deadline_exceeded(self.rpc)),
        };
        let micros = begun.elapsed().as_micros();
        match result {
            Ok(answer) => {
                let (rpc, sandbox, operation) = (self.rpc, &self.subject, &self.operation_id);
                tracing::debug!(
                    rpc,
                    sandbox.id = sandbox,
                    operation.id = operation,
                    micros,
                    "done"
                );
                Ok(Response::new(answer))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Runs a call that answers with a stream. A shutdown ends it with `UNAVAILABLE`.
    pub(super) async fn stream<T: Send + 'static>(
        self,
        open: impl Future<Output = Result<DriverStream<T>, DriverError>>,
    ) -> Result<Response<ResponseStream<T>>, Status> {
        let opened = self.clone().unary(open).await?;
        let stream = opened.into_inner();
        let ended = {
            let (rpc, deadline, shutdown) = (self.rpc, self.deadline, self.shutdown.clone());
            async move {
                tokio::select! {
                    () = passed(deadline) => DriverError::deadline_exceeded(rpc),
                    () = shutdown.cancelled() => {
                        DriverError::unavailable("the driver is shutting down")
                    }
                }
            }
        };
        let rpc = self.rpc;
        let guarded = AssertUnwindSafe(stream)
            .catch_unwind()
            .map(move |item| item.unwrap_or_else(|panic| Err(panicked(rpc, &*panic))));
        let bounded = async_stream::stream! {
            tokio::pin!(guarded, ended);
            loop {
                let item = tokio::select! {
                    item = guarded.next() => item,
                    error = &mut ended => Some(Err(error)),
                };
                match item {
                    Some(Ok(item)) => yield Ok(item),
                    Some(Err(error)) => {
                        yield Err(self.failed(error));
                        return;
                    }
                    None => return,
                }
            }
        };
        Ok(Response::new(Box::pin(bounded)))
    }

    /// The one place where an error becomes a status, and is logged with its causes.
    fn failed(&self, error: DriverError) -> Status {
        let (rpc, sandbox, operation) = (self.rpc, &self.subject, &self.operation_id);
        let (code, chain) = (error.code(), error.chain());
        if code == Code::Internal {
            tracing::error!(
                rpc,
                sandbox.id = sandbox,
                operation.id = operation,
                ?code,
                "{chain}"
            );
        } else {
            tracing::info!(
                rpc,
                sandbox.id = sandbox,
                operation.id = operation,
                ?code,
                "{chain}"
            );
        }
        error.into()
    }
}

/// Waits for the deadline; for ever, if there is none.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn panicked(rpc: &str, panic: &(dyn Any + Send)) -> DriverError {
    let said = panic
        .downcast_ref::<&str>()
        .map(|said| (*said).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    DriverError::internal(format!("the driver panicked in {rpc}: {said}"))
}

/// The deadline in the metadata: `grpc-timeout`, as the gRPC over HTTP/2 specification has it.
pub(super) fn deadline(metadata: &MetadataMap) -> Result<Option<Instant>, DriverError> {
    let Some(value) = metadata.get("grpc-timeout") else {
        return Ok(None);
    };
    let timeout = value.to_str().ok().and_then(parse_timeout);
    let timeout = timeout.ok_or_else(|| {
        DriverError::invalid_field("grpc-timeout", "must be 1 to 8 digits and one of HMSmun")
    })?;
    Ok(Instant::now().checked_add(timeout))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_has_them() {
        assert_eq!(parse_timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(
            parse_timeout("99999999n"),
            Some(Duration::from_nanos(99_999_999))
        );
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        for wrong in ["", "S", "1", "123456789S", "-1S", "1s", "1.5S", "1µ"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
    }
}
