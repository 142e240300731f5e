//! At most one operation for a sandbox at a time; a delete takes over from any other.
//!
//! ```text
//!            begin                       take_over (delete)
//!   free ───────────► busy ─────────────────────────────────► told to stop
//!     ▲                 │ guard dropped                          │ guard dropped
//!     ╰─────────────────┴────────────────────────────────────────╯ then delete is busy
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::error::DriverError;

/// Gateway and sandbox.
type Key = (String, String);

/// All pending operations. As many as there are pending calls, which the connections bound.
#[derive(Debug, Default)]
pub(super) struct Operations(Arc<Mutex<HashMap<Key, Pending>>>);

#[derive(Debug, Clone)]
struct Pending {
    rpc: &'static str,
    /// Tells it to stop.
    stop: CancellationToken,
    /// Cancelled when it has stopped.
    stopped: CancellationToken,
}

const DELETE: &str = "DeleteSandbox";

impl Operations {
    /// Begins `rpc`, if nothing is pending for this sandbox.
    pub(super) fn begin(
        &self,
        gateway_id: &str,
        sandbox_id: &str,
        rpc: &'static str,
    ) -> Result<Operation, DriverError> {
        let key = (gateway_id.to_owned(), sandbox_id.to_owned());
        let mut pending = self.lock();
        if let Some(other) = pending.get(&key) {
            let other = other.rpc;
            let message = format!("{other} is pending for sandbox {sandbox_id:?}");
            return Err(DriverError::aborted(message));
        }
        let operation = Pending {
            rpc,
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
        };
        pending.insert(key.clone(), operation.clone());
        Ok(Operation {
            all: Arc::clone(&self.0),
            key,
            operation,
        })
    }

    /// Begins a delete: stops what is pending, unless that is a delete as well.
    pub(super) async fn take_over(
        &self,
        gateway_id: &str,
        sandbox_id: &str,
    ) -> Result<Operation, DriverError> {
        loop {
            let busy = match self.begin(gateway_id, sandbox_id, DELETE) {
                Ok(operation) => return Ok(operation),
                Err(busy) => busy,
            };
            let key = (gateway_id.to_owned(), sandbox_id.to_owned());
            let other = self.lock().get(&key).cloned();
            match other {
                None => {}
                Some(other) if other.rpc == DELETE => return Err(busy),
                Some(other) => {
                    other.stop.cancel();
                    // Cancelled here, the other operation was stopped for nothing: its caller
                    // repeats it.
                    other.stopped.cancelled().await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to work on a sandbox; given back when dropped.
#[derive(Debug)]
pub(super) struct Operation {
    all: Arc<Mutex<HashMap<Key, Pending>>>,
    key: Key,
    operation: Pending,
}

impl Operation {
    /// Runs `work` to its end, or until a delete takes over. `work` is dropped before this returns.
    pub(super) async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        tokio::select! {
            result = work => result,
            () = self.operation.stop.cancelled() => Err(DriverError::aborted(format!(
                "DeleteSandbox took over from {} for sandbox {:?}",
                self.operation.rpc, self.key.1
            ))),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.key);
        drop(all);
        self.operation.stopped.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_second_operation_is_aborted_and_other_sandboxes_are_not() {
        let operations = Operations::default();
        let first = operations.begin("gw", "a", "StartSandbox").unwrap();
        let second = operations.begin("gw", "a", "StopSandbox").unwrap_err();
        assert_eq!(second.code(), Code::Aborted);
        operations.begin("gw", "b", "StopSandbox").unwrap();
        operations.begin("gw2", "a", "StopSandbox").unwrap();
        drop(first);
        operations.begin("gw", "a", "StopSandbox").unwrap();
    }

    #[tokio::test]
    async fn delete_takes_over_and_a_second_delete_does_not() {
        let operations = Arc::new(Operations::default());
        let create = operations.begin("gw", "a", "CreateSandbox").unwrap();
        let creating =
            tokio::spawn(async move { create.run(pending::<Result<(), DriverError>>()).await });
        let delete = operations.take_over("gw", "a").await.unwrap();
        assert_eq!(creating.await.unwrap().unwrap_err().code(), Code::Aborted);
        let again = operations.take_over("gw", "a").await.unwrap_err();
        assert_eq!(again.code(), Code::Aborted);
        drop(delete);
        operations.begin("gw", "a", "StartSandbox").unwrap();
    }
}
