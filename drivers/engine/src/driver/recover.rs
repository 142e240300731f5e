//! Handles, what is said of a sandbox after a restart, and the inventory.

use std::path::Path;
use std::sync::Arc;

use cofferdam_driver_sdk::handle::{self, HandleRecord};
use cofferdam_driver_sdk::proto::Sandbox;
use cofferdam_driver_sdk::{Call, Created, DriverError, Inventory, RecoverItem, Recovered};
use serde::{Deserialize, Serialize};

use super::EngineDriver;
use crate::client::{Engine, label_filter};
use crate::flavor::Flavor;
use crate::labels::{self, Record};
use crate::sandbox::Tracked;
use crate::{error, relay};

/// Everything about a sandbox is on its engine; the handle says which that is.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct EngineHandle {
    /// The engine's own identity; empty if it has none.
    engine_id: String,
    /// Empty while there is no container yet.
    container_id: String,
}

impl HandleRecord for EngineHandle {
    const VERSION: u32 = 1;
}

/// The answer to a create.
pub(super) fn created(
    engine: &Engine,
    container_id: &str,
    sandbox: Sandbox,
) -> Result<Created, DriverError> {
    let handle = handle::seal(&EngineHandle {
        engine_id: engine.facts.id.clone(),
        container_id: container_id.to_owned(),
    })
    .map_err(|error| DriverError::internal("making a handle").because(error))?;
    Ok(Created { handle, sandbox })
}

impl<F: Flavor> EngineDriver<F> {
    pub(super) async fn recover_one(&self, call: &Call, item: RecoverItem) -> Recovered {
        let unknown = |message: String| Recovered::Unknown { message };
        let handle = match item.handle.as_ref().map(handle::open::<EngineHandle>) {
            Some(Err(error)) => return unknown(error.to_string()),
            Some(Ok(handle)) => handle,
            None => EngineHandle::default(),
        };
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return unknown(error.chain()),
        };
        let (made_on, here) = (&handle.engine_id, &engine.facts.id);
        if !made_on.is_empty() && !here.is_empty() && made_on != here {
            return unknown(format!(
                "the sandbox was made on another engine ({made_on}) than the one at {} ({here})",
                engine.facts.address
            ));
        }
        let found = match self.found(call, &engine, &item.sandbox_id).await {
            Ok(found) => found,
            Err(error) => return unknown(error.chain()),
        };
        let Some(tracked) = found else {
            return Recovered::Gone {
                termination: None,
                message: "the engine has no container of this sandbox".to_owned(),
            };
        };
        match self.look(&engine, &tracked).await {
            Ok(sandbox) => {
                self.reconnect(&engine, &tracked, item.callback_directory.as_deref());
                Recovered::Found {
                    sandbox,
                    handle: None,
                }
            }
            Err(error) if *error.kind() == not_found(&item.sandbox_id) => Recovered::Gone {
                termination: None,
                message: "the engine has no container of this sandbox any more".to_owned(),
            },
            Err(error) => unknown(error.chain()),
        }
    }

    /// Known, or found on the engine by its labels.
    pub(super) async fn found(
        &self,
        call: &Call,
        engine: &Engine,
        id: &str,
    ) -> Result<Option<Arc<Tracked>>, DriverError> {
        if let Some(tracked) = self.find(call, id) {
            return Ok(Some(tracked));
        }
        let labels = label_filter(&[(labels::GATEWAY, call.gateway_id()), (labels::SANDBOX, id)]);
        let found = engine
            .list_containers(&labels)
            .await
            .map_err(error::engine)?;
        let found = found.iter().find_map(|summary| {
            let record = Record::from_labels(&summary.labels)?;
            Some(Tracked::found(record, &summary.id))
        });
        Ok(found.map(|tracked| self.0.sandboxes.add(tracked).0))
    }

    /// A relay goes to where the socket is now; a mount stays as it was made.
    fn reconnect(&self, engine: &Engine, tracked: &Arc<Tracked>, callback: Option<&Path>) {
        let Some(callback) = callback else { return };
        let record = tracked.record();
        if relay::is_for(&record) {
            relay::resume(&self.0.context, engine, tracked, callback);
            return;
        }
        let is_moved = Path::new(&record.callback) != callback;
        tracked.set_disruption(is_moved.then(|| {
            format!(
                "the sandbox has {} mounted and the gateway's socket is in {} now: its supervisor \
                 cannot reach the gateway",
                record.callback,
                callback.display()
            )
        }));
    }

    /// What the engine has for this gateway, asked now.
    pub(super) async fn inventory(&self, call: &Call) -> Result<Inventory, DriverError> {
        let log = &self.0.context.observations;
        let gateway_id = call.gateway_id();
        self.0.preparations.meet(gateway_id).await;
        let ours = || {
            let all = self.0.sandboxes.all().into_iter();
            all.filter(|tracked| tracked.record().gateway_id == gateway_id)
        };
        let Ok(engine) = self.engine() else {
            // What was last seen; nobody may conclude from it.
            let known =
                ours().filter_map(|tracked| log.current(gateway_id, &tracked.record().sandbox_id));
            return Ok(Inventory {
                sandboxes: known.collect(),
                complete: false,
            });
        };
        let labels = vec![
            labels::SANDBOX.to_owned(),
            format!("{}={gateway_id}", labels::GATEWAY),
        ];
        let found = engine
            .list_containers(&labels)
            .await
            .map_err(error::engine)?;
        for summary in &found {
            if let Some(record) = Record::from_labels(&summary.labels) {
                self.0.sandboxes.add(Tracked::found(record, &summary.id));
            }
        }
        let mut inventory = Inventory {
            sandboxes: Vec::new(),
            complete: true,
        };
        for tracked in ours() {
            match self.look(&engine, &tracked).await {
                Ok(sandbox) => inventory.sandboxes.push(sandbox),
                // Removed meanwhile.
                Err(error) if *error.kind() == not_found(&tracked.record().sandbox_id) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(inventory)
    }
}

/// The kind of [`DriverError::sandbox_not_found`].
pub(super) fn not_found(id: &str) -> cofferdam_driver_sdk::error::ErrorKind {
    DriverError::sandbox_not_found(id).kind().clone()
}
