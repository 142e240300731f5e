//! The handle by which the rest of the gateway sees and calls a driver.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cofferdam_proto::compute::v1 as wire;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use super::{CallError, DriverView, Violation};
use crate::model::{DriverName, Handle, Observation, OperationId, SandboxId, SandboxSpec, Token};

/// A driver, connected or not. Cheap to clone.
///
/// Each call has its own deadline, waits for a driver that is just being reached, and repeats
/// itself where the contract says so; every RPC of the contract may come twice. Dropping the future
/// of a call cancels the RPC, after which it may have taken effect.
#[derive(Debug, Clone)]
pub struct Driver {
    pub(super) inner: Arc<()>,
}

/// What `create` needs.
#[derive(Debug, Clone)]
pub struct CreateCall {
    pub sandbox_id: SandboxId,
    pub spec: SandboxSpec,
    /// Empty for driver-executed platforms.
    pub callback_directory: PathBuf,
    pub token: Token,
    pub operation: OperationId,
}

/// What `start` needs.
#[derive(Debug, Clone)]
pub struct StartCall {
    pub sandbox_id: SandboxId,
    pub token: Token,
    pub operation: OperationId,
}

/// All sandboxes of this gateway that a driver could find.
#[derive(Debug, Clone)]
pub struct Inventory {
    pub observations: Vec<Observation>,
    /// Only then is what is not listed gone.
    pub complete: bool,
    pub incarnation: String,
}

/// A sandbox that is to be found again.
#[derive(Debug, Clone)]
pub struct RecoverItem {
    pub sandbox_id: SandboxId,
    /// `None`: the answer to the create was lost.
    pub handle: Option<Handle>,
    pub callback_directory: PathBuf,
}

/// The answer to one `RecoverItem`.
#[derive(Debug, Clone)]
pub struct Recovered {
    pub sandbox_id: SandboxId,
    pub outcome: RecoverOutcome,
    pub observation: Option<Observation>,
    pub message: String,
    /// A new handle to store, if it changed.
    pub handle: Option<Handle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoverOutcome {
    Recovered,
    Gone,
    Unknown,
}

impl Driver {
    /// The name under which the operator attached it.
    pub fn name(&self) -> &DriverName {
        todo!()
    }

    /// What is known of it now.
    pub fn view(&self) -> Arc<DriverView> {
        todo!()
    }

    /// The view whenever it changes.
    pub fn changes(&self) -> watch::Receiver<Arc<DriverView>> {
        todo!()
    }

    pub async fn create(&self, call: CreateCall) -> Result<(Handle, Observation), CallError> {
        let _ = call;
        todo!()
    }

    pub async fn start(&self, call: StartCall) -> Result<Observation, CallError> {
        let _ = call;
        todo!()
    }

    pub async fn stop(
        &self,
        sandbox_id: &SandboxId,
        grace: Duration,
        operation: &OperationId,
    ) -> Result<Observation, CallError> {
        let _ = (sandbox_id, grace, operation);
        todo!()
    }

    pub async fn delete(
        &self,
        sandbox_id: &SandboxId,
        operation: &OperationId,
    ) -> Result<(), CallError> {
        let _ = (sandbox_id, operation);
        todo!()
    }

    /// `None`: the platform says that there is no such sandbox.
    pub async fn get(&self, sandbox_id: &SandboxId) -> Result<Option<Observation>, CallError> {
        let _ = sandbox_id;
        todo!()
    }

    pub async fn list(&self) -> Result<Inventory, CallError> {
        todo!()
    }

    /// One answer for each item, in the same order.
    pub async fn recover(&self, items: Vec<RecoverItem>) -> Result<Vec<Recovered>, CallError> {
        let _ = items;
        todo!()
    }

    /// Everything that the driver finds wrong with a spec.
    pub async fn validate(&self, spec: &SandboxSpec) -> Result<Vec<Violation>, CallError> {
        let _ = spec;
        todo!()
    }

    /// Checks `driver_config` against the driver's schema, without a call.
    pub fn driver_config_violations(
        &self,
        config: &serde_json::Map<String, serde_json::Value>,
    ) -> Vec<Violation> {
        let _ = config;
        todo!()
    }

    /// The platform's log of a sandbox. `tail_bytes` 0: all that is kept.
    pub async fn console(
        &self,
        sandbox_id: &SandboxId,
        tail_bytes: u64,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Bytes, CallError>>, CallError> {
        let _ = (sandbox_id, tail_bytes, follow);
        todo!()
    }

    /// Use of resources, once.
    pub async fn stats(
        &self,
        sandbox_id: &SandboxId,
    ) -> Result<wire::SandboxStatsResponse, CallError> {
        let _ = sandbox_id;
        todo!()
    }
}
