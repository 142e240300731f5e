//! Named volumes: supervisors and workspaces.

use std::collections::BTreeMap;

use http::Method;
use serde_json::json;

use super::containers::ask;
use super::request::{path, segment};
use super::wire::{VolumeJson, VolumesJson};
use super::{Engine, EngineError, QUICK, SLOW, gone_is_fine};

impl Engine {
    /// Makes it; one of this name that exists stays as it is.
    pub(crate) async fn create_volume(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let ask = ask("create volume", name, QUICK);
        let body = json!({ "Name": name, "Labels": labels });
        let _: VolumeJson = self
            .transport
            .post_json(ask, "/volumes/create", &body)
            .await?;
        Ok(())
    }

    /// One that is not there is removed.
    pub(crate) async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let ask = ask("remove volume", name, SLOW);
        let target = format!("/volumes/{}", segment(name));
        gone_is_fine(self.transport.perform(ask, Method::DELETE, &target).await)
    }

    pub(crate) async fn inspect_volume(&self, name: &str) -> Result<VolumeJson, EngineError> {
        let ask = ask("inspect volume", name, QUICK);
        let target = format!("/volumes/{}", segment(name));
        self.transport.get_json(ask, &target).await
    }

    /// Volumes with these labels that no container uses.
    pub(crate) async fn unused_volumes(
        &self,
        labels: &[String],
    ) -> Result<Vec<VolumeJson>, EngineError> {
        let filters = json!({ "label": labels, "dangling": ["true"] }).to_string();
        let ask = ask("list", "volumes", QUICK);
        let target = path("/volumes", &[("filters", &filters)]);
        let found: VolumesJson = self.transport.get_json(ask, &target).await?;
        Ok(found.volumes)
    }
}
