//! Containers: made, started, watched, removed.

use std::time::Duration;

use bollard_stubs::models::ContainerCreateBody;
use http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::request::{Ask, path, segment};
use super::wire::{ContainerJson, ContainerSummaryJson, CreatedJson, StatsJson};
use super::{Engine, EngineError, Kind, QUICK, SLOW, gone_is_fine};

/// How long an engine may refuse to remove what it is at work with.
const REMOVE_PATIENCE: Duration = Duration::from_secs(15);
const REMOVE_RETRY: Duration = Duration::from_millis(200);

impl Engine {
    pub(crate) async fn create_container(
        &self,
        name: &str,
        platform: Option<&str>,
        body: &ContainerCreateBody,
    ) -> Result<CreatedJson, EngineError> {
        let ask = ask("create container", name, SLOW);
        let mut query = vec![("name", name)];
        query.extend(platform.map(|platform| ("platform", platform)));
        let target = path("/containers/create", &query);
        self.transport.post_json(ask, &target, body).await
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let ask = ask("start container", id, SLOW);
        let target = format!("/containers/{id}/start");
        self.transport.perform(ask, Method::POST, &target).await
    }

    /// At once. One that does not run forgets what it was prepared for.
    pub(crate) async fn stop_container(&self, id: &str) -> Result<(), EngineError> {
        let ask = ask("stop container", id, SLOW);
        let target = path(&format!("/containers/{id}/stop"), &[("t", "0")]);
        match self.transport.perform(ask, Method::POST, &target).await {
            // Podman says so of one that is not prepared for anything.
            Err(error) if error.message.contains("can only stop") => Ok(()),
            other => other,
        }
    }

    /// Of one that does not run it is a `Conflict`.
    pub(crate) async fn kill_container(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let ask = ask("signal container", id, SLOW);
        let target = path(&format!("/containers/{id}/kill"), &[("signal", signal)]);
        self.transport.perform(ask, Method::POST, &target).await
    }

    /// Resolves when it does not run; at once if it does not.
    pub(crate) async fn wait_container(
        &self,
        id: &str,
        limit: Duration,
    ) -> Result<(), EngineError> {
        let ask = ask("wait for container", id, limit);
        let target = path(
            &format!("/containers/{id}/wait"),
            &[("condition", "not-running")],
        );
        self.transport.perform(ask, Method::POST, &target).await
    }

    /// Of one that has the name already it is done.
    pub(crate) async fn rename_container(&self, id: &str, name: &str) -> Result<(), EngineError> {
        let ask = ask("rename container", id, QUICK);
        let target = path(&format!("/containers/{id}/rename"), &[("name", name)]);
        let renamed = self.transport.perform(ask, Method::POST, &target).await;
        let Err(error) = renamed else { return Ok(()) };
        match self.inspect_container(id).await {
            Ok(seen) if seen.name.trim_start_matches('/') == name => Ok(()),
            _ => Err(error),
        }
    }

    pub(crate) async fn pause_container(&self, id: &str) -> Result<(), EngineError> {
        let ask = ask("pause container", id, QUICK);
        let target = format!("/containers/{id}/pause");
        self.transport.perform(ask, Method::POST, &target).await
    }

    pub(crate) async fn unpause_container(&self, id: &str) -> Result<(), EngineError> {
        let ask = ask("unpause container", id, QUICK);
        let target = format!("/containers/{id}/unpause");
        self.transport.perform(ask, Method::POST, &target).await
    }

    /// Kills and removes it with its anonymous volumes, and returns when it is gone.
    pub(crate) async fn remove_container(
        &self,
        id: &str,
        limit: Duration,
    ) -> Result<(), EngineError> {
        let target = path(
            &format!("/containers/{}", segment(id)),
            &[("force", "1"), ("v", "1")],
        );
        let end = Instant::now() + limit.min(REMOVE_PATIENCE);
        loop {
            let ask = ask("remove container", id, limit);
            match self.transport.perform(ask, Method::DELETE, &target).await {
                // Somebody else is removing it; the engine says nothing when that is done.
                Err(error) if error.kind == Kind::Conflict => {
                    return self.wait_removed(id, limit).await;
                }
                // So does Podman answer who comes while it makes, starts or removes the same.
                Err(error) if error.kind == Kind::Server && Instant::now() < end => {
                    tracing::debug!(container = id, error = %error.chain(), "removed again");
                    sleep(REMOVE_RETRY).await;
                }
                other => return gone_is_fine(other),
            }
        }
    }

    async fn wait_removed(&self, id: &str, limit: Duration) -> Result<(), EngineError> {
        let ask = ask("remove container", id, limit);
        let target = path(
            &format!("/containers/{id}/wait"),
            &[("condition", "removed")],
        );
        gone_is_fine(self.transport.perform(ask, Method::POST, &target).await)
    }

    /// By id or name.
    pub(crate) async fn inspect_container(&self, id: &str) -> Result<ContainerJson, EngineError> {
        let ask = ask("inspect container", id, QUICK);
        let target = format!("/containers/{}/json", segment(id));
        self.transport.get_json(ask, &target).await
    }

    /// All containers, running or not, with all of these labels ("name" or "name=value").
    pub(crate) async fn list_containers(
        &self,
        labels: &[String],
    ) -> Result<Vec<ContainerSummaryJson>, EngineError> {
        let filters = json!({ "label": labels }).to_string();
        let ask = ask("list", "containers", QUICK);
        let target = path("/containers/json", &[("all", "1"), ("filters", &filters)]);
        self.transport.get_json(ask, &target).await
    }

    pub(crate) async fn container_stats(&self, id: &str) -> Result<StatsJson, EngineError> {
        let ask = ask("measure container", id, QUICK);
        let target = path(
            &format!("/containers/{id}/stats"),
            &[("stream", "false"), ("one-shot", "true")],
        );
        self.transport.get_json(ask, &target).await
    }

    /// Unpacks a tar archive below a directory of a container, which need not run.
    pub(crate) async fn upload(
        &self,
        id: &str,
        directory: &str,
        archive: Vec<u8>,
    ) -> Result<(), EngineError> {
        let ask = ask("copy files into container", id, SLOW);
        let target = path(&format!("/containers/{id}/archive"), &[("path", directory)]);
        self.transport.put_archive(ask, &target, archive).await
    }
}

/// Labels as an engine's filters want them.
pub(crate) fn label_filter(labels: &[(&str, &str)]) -> Vec<String> {
    labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

pub(super) fn ask<'a>(operation: &'static str, object: &'a str, limit: Duration) -> Ask<'a> {
    Ask {
        operation,
        object,
        limit,
    }
}
