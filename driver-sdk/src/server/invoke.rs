//! What the RPCs have in common: who calls, may it run now, and what it saw.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tonic::{Request, Status};

use super::answer::{self, Bounds};
use super::{Connection, Server};
use crate::context::Call;
use crate::driver::{ComputeDriver, CreateRequest, Created, DriverStream, RecoverItem, Recovered};
use crate::error::DriverError;
use crate::proto::recover_sandboxes_response::{Outcome, Result as RecoverResult};
use crate::proto::{
    Capabilities, CreateSandboxRequest, Sandbox, SandboxStatsRequest, SandboxStatsResponse,
};

/// How many sandboxes are looked for at the same time.
const RECOVER_CONCURRENCY: usize = 32;

impl<D: ComputeDriver> Server<D> {
    /// What ends the call, for an RPC about `subject`.
    pub(super) fn bounds<T>(
        &self,
        request: &Request<T>,
        rpc: &'static str,
        subject: &str,
        operation_id: &str,
    ) -> Result<Bounds, Status> {
        Ok(Bounds {
            rpc,
            subject: subject.chars().take(64).collect(),
            operation_id: operation_id.chars().take(64).collect(),
            deadline: answer::deadline(request.metadata())?,
            shutdown: self.0.context.shutdown.clone(),
        })
    }

    /// Who calls. The driver has been configured, unless `unconfigured` says that it need not.
    pub(super) fn call<T>(
        &self,
        request: &Request<T>,
        bounds: &Bounds,
    ) -> Result<Call, DriverError> {
        let gateway = connection(request)?.gateway()?;
        if !self.is_configured() && bounds.rpc != "Configure" && bounds.rpc != "Fingerprint" {
            return Err(DriverError::precondition(
                "NOT_CONFIGURED",
                "driver",
                "the driver has not been given its settings yet",
                "call Configure, with empty settings if there are none",
            ));
        }
        Ok(Call {
            gateway,
            operation_id: bounds.operation_id.clone(),
            deadline: bounds.deadline,
        })
    }

    /// Runs `work` as the one operation on its sandbox, and reports what it observed.
    pub(super) async fn operate<Fut>(
        &self,
        call: &Call,
        sandbox_id: &str,
        rpc: &'static str,
        work: impl FnOnce() -> Fut,
    ) -> Result<Sandbox, DriverError>
    where
        Fut: Future<Output = Result<Sandbox, DriverError>>,
    {
        let operation = self
            .0
            .operations
            .begin(call.gateway_id(), sandbox_id, rpc)?;
        let sandbox = operation.run(work()).await?;
        self.observed(call, sandbox)
    }

    pub(super) async fn make<Fut>(
        &self,
        call: &Call,
        rpc: &'static str,
        request: CreateSandboxRequest,
        make: impl FnOnce(CreateRequest) -> Fut,
    ) -> Result<Created, DriverError>
    where
        Fut: Future<Output = Result<Created, DriverError>>,
    {
        let request = self.checked_create(call, request).await?;
        let id = request.sandbox_id.clone();
        let operation = self.0.operations.begin(call.gateway_id(), &id, rpc)?;
        self.0.context.observations.expect(call.gateway_id(), &id);
        let Created { handle, sandbox } = operation.run(make(request)).await?;
        let sandbox = self.observed(call, sandbox)?;
        Ok(Created { handle, sandbox })
    }

    /// Items of different sandboxes side by side, those of one sandbox one after the other: each is
    /// an operation on it. The results are in the order of the items.
    pub(super) async fn recover_all(
        &self,
        call: &Call,
        items: impl Iterator<Item = RecoverItem>,
    ) -> Vec<RecoverResult> {
        let mut sandboxes: BTreeMap<String, Vec<(usize, RecoverItem)>> = BTreeMap::new();
        for (place, item) in items.enumerate() {
            let same = sandboxes.entry(item.sandbox_id.clone()).or_default();
            same.push((place, item));
        }
        let looks = sandboxes.into_values().map(|same| async move {
            let mut results = Vec::with_capacity(same.len());
            for (place, item) in same {
                results.push((place, self.recover_one(call, item).await));
            }
            results
        });
        let looks = stream::iter(looks).buffer_unordered(RECOVER_CONCURRENCY);
        let mut results: Vec<_> = looks.concat().await;
        results.sort_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn recover_one(&self, call: &Call, item: RecoverItem) -> RecoverResult {
        let sandbox_id = item.sandbox_id.clone();
        let operation = self
            .0
            .operations
            .begin(call.gateway_id(), &sandbox_id, "RecoverSandboxes");
        let recovered = match operation {
            Ok(operation) => operation
                .run(async { Ok(self.0.driver.recover(call, item).await) })
                .await
                .unwrap_or_else(unknown),
            Err(busy) => unknown(busy),
        };
        self.recover_result(call, sandbox_id, recovered)
    }

    fn recover_result(&self, call: &Call, sandbox_id: String, found: Recovered) -> RecoverResult {
        let mut result = RecoverResult {
            sandbox_id,
            ..RecoverResult::default()
        };
        match found {
            Recovered::Found { sandbox, handle } => match self.observed(call, sandbox) {
                Ok(sandbox) => {
                    result.set_outcome(Outcome::Recovered);
                    result.sandbox = Some(sandbox);
                    result.handle = handle;
                }
                Err(removed) => {
                    result.set_outcome(Outcome::Gone);
                    result.message = removed.to_string();
                }
            },
            Recovered::Gone {
                termination,
                message,
            } => {
                result.set_outcome(Outcome::Gone);
                result.sandbox = termination.map(|termination| Sandbox {
                    sandbox_id: result.sandbox_id.clone(),
                    termination: Some(termination),
                    ..Sandbox::default()
                });
                result.message = message;
            }
            Recovered::Unknown { message } => {
                result.set_outcome(Outcome::Unknown);
                result.message = message;
            }
        }
        result
    }

    /// `UNIMPLEMENTED` unless the driver says that it can.
    pub(super) fn can(
        &self,
        rpc: &'static str,
        ask: impl FnOnce(&Capabilities) -> bool,
    ) -> Result<(), DriverError> {
        if ask(&self.0.driver.capabilities()) {
            Ok(())
        } else {
            Err(DriverError::unimplemented(rpc))
        }
    }

    /// The first measurement, and more of them at the asked interval.
    pub(super) fn measure(
        self,
        call: Call,
        request: SandboxStatsRequest,
        first: SandboxStatsResponse,
    ) -> DriverStream<SandboxStatsResponse> {
        Box::pin(async_stream::try_stream! {
            yield first;
            if request.interval_ms == 0 {
                return;
            }
            let interval = Duration::from_millis(request.interval_ms);
            loop {
                tokio::time::sleep(interval).await;
                yield self.0.driver.stats(&call, &request.sandbox_id).await?;
            }
        })
    }
}

fn unknown(error: DriverError) -> Recovered {
    Recovered::Unknown {
        message: error.to_string(),
    }
}

pub(super) fn connection<T>(request: &Request<T>) -> Result<&Arc<Connection>, DriverError> {
    request
        .extensions()
        .get()
        .ok_or_else(|| DriverError::internal("a request came without its connection"))
}
