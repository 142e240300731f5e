//! What callers do with executions, but for the stream of `execute.rs`.

use std::sync::Arc;
use std::time::Duration;

use cofferdam_proto::gateway::v1 as wire;
use tonic::{Code, Response};

use super::caller::Caller;
use super::execute::{self, EventStream};
use super::intake::idempotency;
use super::service::{Answer, STOP_GRACE_MAX_MS, page_size};
use super::status::ApiError;
use super::{Api, convert};
use crate::execution::{NewExecution, StartError};
use crate::model::{ExecutionFacts, ExecutionId};
use crate::sandbox::CreateError;
use crate::store::{ExecutionFilter, IdempotencyKey, StoreError};

const WAIT_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

impl Api {
    pub(super) async fn create_execution(
        &self,
        caller: Caller,
        request: wire::CreateExecutionRequest,
    ) -> Answer<wire::CreateExecutionResponse> {
        let wanted = request
            .execution
            .ok_or_else(|| ApiError::field("execution", "is missing"))?;
        let key = idempotency(caller, &request.idempotency_key, &wanted)?;
        if let Some(facts) = self.known_execution(caller, key.as_ref()).await? {
            return Ok(Response::new(wire::CreateExecutionResponse {
                execution: Some(convert::execution(&facts)),
            }));
        }
        let new = self.new_execution(caller, wanted, false).await?;
        let facts = match self.0.executions.start(new, key.as_ref()).await {
            Ok((execution, _)) => execution.facts(),
            Err(error) => match self.lost_race(caller, key.as_ref(), &error).await? {
                Some(winner) => winner,
                None => return Err(ApiError::from(error).into()),
            },
        };
        Ok(Response::new(wire::CreateExecutionResponse {
            execution: Some(convert::execution(&facts)),
        }))
    }

    pub(super) async fn get_execution(
        &self,
        caller: Caller,
        request: wire::GetExecutionRequest,
    ) -> Answer<wire::GetExecutionResponse> {
        let (id, mut facts) = caller
            .execution(&self.0.executions, &request.execution_id)
            .await?;
        if request.wait_ms > 0
            && let Some(execution) = self.0.executions.find(&id)
        {
            let patience = Duration::from_millis(request.wait_ms.min(WAIT_MAX_MS));
            facts = match tokio::time::timeout(patience, execution.ended()).await {
                Ok(facts) => facts,
                Err(_) => execution.facts(),
            };
        }
        Ok(Response::new(wire::GetExecutionResponse {
            execution: Some(convert::execution(&facts)),
        }))
    }

    pub(super) async fn list_executions(
        &self,
        caller: Caller,
        request: wire::ListExecutionsRequest,
    ) -> Answer<wire::ListExecutionsResponse> {
        let sandbox = match request.sandbox.as_str() {
            "" => None,
            // One that is gone is known by its id only.
            name => Some(match self.sandbox(caller, name) {
                Ok(sandbox) => sandbox.id().clone(),
                Err(error) => crate::model::SandboxId::parse(name).map_err(|_| error)?,
            }),
        };
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(
                ExecutionId::parse(token)
                    .map_err(|_| ApiError::field("page_token", "is not from an earlier page"))?,
            ),
        };
        let filter = ExecutionFilter {
            sandbox,
            running_only: request.running_only,
            owner_uid: caller.owner_filter(),
        };
        let page = self
            .0
            .store
            .executions(&filter, page_size(request.page_size), before.as_ref())
            .await
            .map_err(ApiError::from)?;
        Ok(Response::new(wire::ListExecutionsResponse {
            executions: page
                .executions
                .iter()
                .map(|stored| match self.0.executions.find(&stored.id) {
                    // The runner knows how much there is by now.
                    Some(live) => convert::execution(&live.facts()),
                    None => convert::execution(stored),
                })
                .collect(),
            next_page_token: page.next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    pub(super) async fn cancel_execution(
        &self,
        caller: Caller,
        request: wire::CancelExecutionRequest,
    ) -> Answer<wire::CancelExecutionResponse> {
        let (id, mut facts) = caller
            .execution(&self.0.executions, &request.execution_id)
            .await?;
        if let Some(execution) = self.0.executions.find(&id) {
            let grace = match request.grace_ms {
                0 => self.0.cancel_grace,
                asked => Duration::from_millis(asked.min(STOP_GRACE_MAX_MS)),
            };
            execution.cancel(grace).await;
            facts = execution.ended().await;
        }
        Ok(Response::new(wire::CancelExecutionResponse {
            execution: Some(convert::execution(&facts)),
        }))
    }

    pub(super) async fn signal_execution(
        &self,
        caller: Caller,
        request: wire::SignalExecutionRequest,
    ) -> Answer<wire::SignalExecutionResponse> {
        let (id, _) = caller
            .execution(&self.0.executions, &request.execution_id)
            .await?;
        if !(1..=64).contains(&request.signal) {
            return Err(ApiError::field("signal", "is a Linux signal, 1 to 64").into());
        }
        if let Some(execution) = self.0.executions.find(&id) {
            execution.signal(request.signal).await;
        }
        Ok(Response::new(wire::SignalExecutionResponse {}))
    }

    pub(super) async fn read_output(
        &self,
        caller: Caller,
        request: wire::ReadOutputRequest,
    ) -> Answer<EventStream> {
        let (id, _) = caller
            .execution(&self.0.executions, &request.execution_id)
            .await?;
        let follow = self
            .0
            .executions
            .follow(&id, request.from_offset, false)
            .await
            .map_err(ApiError::from)?
            .ok_or_else(|| ApiError::no_execution(&request.execution_id))?;
        Ok(Response::new(execute::read_only(follow, request.follow)))
    }

    pub(super) async fn new_execution(
        &self,
        caller: Caller,
        request: wire::ExecutionRequest,
        attached: bool,
    ) -> Result<NewExecution, ApiError> {
        self.takes_work()?;
        let intake = &self.0.intake;
        intake
            .execution(caller, request, attached, &self.0.sandboxes)
            .await
    }

    /// The same request with the same key came twice at once, and the other one was first.
    pub(super) async fn lost_race(
        &self,
        caller: Caller,
        key: Option<&IdempotencyKey>,
        error: &StartError,
    ) -> Result<Option<Arc<ExecutionFacts>>, ApiError> {
        match error {
            StartError::Store(StoreError::KeyUsed { .. })
            | StartError::Sandbox(CreateError::Store(StoreError::KeyUsed { .. })) => {
                self.known_execution(caller, key).await
            }
            _ => Ok(None),
        }
    }

    /// What the same request with the same key has started before.
    pub(super) async fn known_execution(
        &self,
        caller: Caller,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Arc<ExecutionFacts>>, ApiError> {
        let Some(object_id) = self.known(key).await? else {
            return Ok(None);
        };
        let (_, facts) = caller.execution(&self.0.executions, &object_id).await?;
        Ok(Some(facts))
    }

    pub(super) async fn known(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<String>, ApiError> {
        let Some(key) = key else {
            return Ok(None);
        };
        let used = self
            .0
            .store
            .find_idempotent(key.caller_uid, &key.key)
            .await?;
        match used {
            None => Ok(None),
            Some(used) if used.digest == key.digest => Ok(Some(used.object_id)),
            Some(_) => Err(ApiError::new(
                Code::AlreadyExists,
                "IDEMPOTENCY_KEY_REUSED",
                "this idempotency key was used for another request",
            )
            .hint("use a new key for a new request")),
        }
    }
}
