//! What is done to a sandbox that is made: started again, stopped, paused, removed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cofferdam_driver_sdk::proto::{Sandbox, SandboxState};
use cofferdam_driver_sdk::supervisor::Token;
use cofferdam_driver_sdk::{Call, DriverError};

use super::EngineDriver;
use crate::client::{Engine, EngineError, Kind, SLOW};
use crate::error;
use crate::flavor::Flavor;
use crate::relay;
use crate::sandbox::{Tracked, now_unix_ms};

/// Beyond the grace, until the engine has taken a container down.
const STOP_MARGIN: Duration = Duration::from_secs(20);

impl<F: Flavor> EngineDriver<F> {
    pub(super) async fn start_again(
        &self,
        call: &Call,
        id: &str,
        token: Token,
    ) -> Result<Sandbox, DriverError> {
        let (tracked, container) = self.container(call, id)?;
        let _operation = tracked.operation.lock().await;
        let engine = self.engine()?;
        let sandbox = self.look(&engine, &tracked).await?;
        match sandbox.state() {
            SandboxState::Running | SandboxState::Paused => {
                // Begun by a driver that was killed, and with it the relay.
                let callback = tracked.record().callback;
                if relay::is_for(&tracked.record()) {
                    relay::resume(&self.0.context, &engine, &tracked, Path::new(&callback));
                }
                return Ok(sandbox);
            }
            SandboxState::Stopped if is_over(tracked.record().expire_time_unix_ms) => {
                return Err(DriverError::precondition(
                    "SANDBOX_STATE",
                    id,
                    "the sandbox's expire time has passed",
                    "delete it, and make another one",
                ));
            }
            SandboxState::Stopped => {}
            _ => {
                let why = sandbox.termination.map(|ended| ended.message);
                return Err(DriverError::precondition(
                    "SANDBOX_STATE",
                    id,
                    format!(
                        "the sandbox cannot be started again: {}",
                        why.unwrap_or_default()
                    ),
                    "delete it",
                ));
            }
        }
        let before = tracked.name();
        // Written down before it is done, and when it is done: a driver that comes after us counts
        // the same.
        let next = before.next_boot();
        if next == before {
            // Somebody was killed at it, and may have told a supervisor who it is that has not begun.
            let reset = engine.stop_container(&container).await;
            reset.map_err(error::engine)?;
        } else {
            self.rename(&engine, &tracked, &container, next.clone())
                .await?;
        }
        let callback = tracked.record().callback;
        let booted = self
            .boot_again(&engine, &tracked, &container, token, Path::new(&callback))
            .await;
        if let Err(failed) = booted {
            if let Err(error) = self.rename(&engine, &tracked, &container, before).await {
                tracing::warn!(error = error.chain(), "a boot was counted that was none");
            }
            return Err(error::engine(failed));
        }
        self.rename(&engine, &tracked, &container, next.begun())
            .await?;
        self.look(&engine, &tracked).await
    }

    pub(super) async fn stop_one(
        &self,
        call: &Call,
        id: &str,
        grace: Duration,
    ) -> Result<Sandbox, DriverError> {
        let (tracked, container) = self.container(call, id)?;
        let _operation = tracked.operation.lock().await;
        let engine = self.engine()?;
        let sandbox = self.look(&engine, &tracked).await?;
        match sandbox.state() {
            SandboxState::Running | SandboxState::Paused => {}
            _ => return Ok(sandbox),
        }
        // Cancelled from here on, the next call goes on: the name says what is going on.
        let name = tracked.name();
        if !name.is_stopping {
            self.rename(&engine, &tracked, &container, name.stopping())
                .await?;
        }
        let stopped = stop(&engine, &container, sandbox.state(), grace).await;
        stopped.map_err(error::engine)?;
        tracked.stop_relay();
        self.look(&engine, &tracked).await
    }

    pub(super) async fn set_paused(
        &self,
        call: &Call,
        id: &str,
        paused: bool,
    ) -> Result<Sandbox, DriverError> {
        let (tracked, container) = self.container(call, id)?;
        let _operation = tracked.operation.lock().await;
        let engine = self.engine()?;
        let sandbox = self.look(&engine, &tracked).await?;
        let done = match (sandbox.state(), paused) {
            (SandboxState::Paused, true) | (SandboxState::Running, false) => return Ok(sandbox),
            (SandboxState::Running, true) => engine.pause_container(&container).await,
            (SandboxState::Paused, false) => engine.unpause_container(&container).await,
            _ => {
                return Err(DriverError::precondition(
                    "SANDBOX_STATE",
                    id,
                    "the sandbox does not run",
                    "start it",
                ));
            }
        };
        done.map_err(error::engine)?;
        self.look(&engine, &tracked).await
    }

    pub(super) async fn delete_one(&self, call: &Call, id: &str) -> Result<(), DriverError> {
        let engine = self.engine()?;
        // What the engine still makes of it, asked by a driver that was killed, is removed when it comes.
        self.0.sandboxes.note_delete(call.gateway_id(), id);
        // Not in our memory may still be on the engine.
        let Some(tracked) = self.found(call, &engine, id).await? else {
            return Ok(());
        };
        tracked.cancel.cancel();
        let _operation = tracked.operation.lock().await;
        self.remove_all(&engine, &tracked, call.remaining(SLOW))
            .await
    }

    async fn remove_all(
        &self,
        engine: &Engine,
        tracked: &Arc<Tracked>,
        limit: Duration,
    ) -> Result<(), DriverError> {
        self.take_apart(engine, tracked, limit).await?;
        tracked.is_gone(&self.0.context.observations);
        Ok(())
    }

    /// Removes the container and its workspace, and forgets the sandbox. Cancelled, the next call
    /// goes on: the container is removed first, and its workspace only when nobody uses it.
    pub(super) async fn take_apart(
        &self,
        engine: &Engine,
        tracked: &Arc<Tracked>,
        limit: Duration,
    ) -> Result<(), DriverError> {
        let record = tracked.record();
        if let Some(container) = tracked.container_id() {
            let removed = engine.remove_container(&container, limit).await;
            removed.map_err(error::engine)?;
        }
        if !record.workspace_volume.is_empty() {
            let removed = engine.remove_volume(&record.workspace_volume).await;
            removed.map_err(error::engine)?;
        }
        self.0.sandboxes.remove(tracked);
        Ok(())
    }

    async fn rename(
        &self,
        engine: &Engine,
        tracked: &Arc<Tracked>,
        container: &str,
        name: crate::naming::Name,
    ) -> Result<(), DriverError> {
        let renamed = engine.rename_container(container, &name.to_string()).await;
        renamed.map_err(error::engine)?;
        tracked.set_name(name);
        Ok(())
    }
}

fn is_over(expire_time_unix_ms: u64) -> bool {
    expire_time_unix_ms > 0 && now_unix_ms() >= expire_time_unix_ms
}

/// Asks, and kills after the grace. Returns when it does not run.
async fn stop(
    engine: &Engine,
    container: &str,
    state: SandboxState,
    grace: Duration,
) -> Result<(), EngineError> {
    if state == SandboxState::Paused {
        // What is frozen hears nothing.
        engine.unpause_container(container).await?;
    }
    if !grace.is_zero() {
        not_running_is_fine(engine.kill_container(container, "SIGTERM").await)?;
        match engine.wait_container(container, grace).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind == Kind::Timeout => {}
            Err(error) => return Err(error),
        }
    }
    not_running_is_fine(engine.kill_container(container, "SIGKILL").await)?;
    engine.wait_container(container, STOP_MARGIN).await
}

fn not_running_is_fine(killed: Result<(), EngineError>) -> Result<(), EngineError> {
    match killed {
        Err(error) if error.kind == Kind::Conflict => Ok(()),
        // Podman answers so.
        Err(error) if error.message.contains("can only kill running containers") => Ok(()),
        other => other,
    }
}
