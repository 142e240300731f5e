//! Removing what earlier runs of the driver have left for one gateway: carriers, workspaces that
//! nobody uses, supervisors of earlier runs. What another gateway's driver made is not touched.

use crate::client::{Engine, EngineError, Kind, SLOW};
use crate::labels;

/// Goes on after what cannot be removed; the first of that is the error.
pub(super) async fn clean(engine: &Engine, gateway_id: &str) -> Result<(), EngineError> {
    let with_role = |role: &str| {
        crate::client::label_filter(&[(labels::GATEWAY, gateway_id), (labels::ROLE, role)])
    };
    let mut done = Ok(());
    for carrier in engine
        .list_containers(&with_role(labels::ROLE_CARRIER))
        .await?
    {
        done = done.and(engine.remove_container(&carrier.id, SLOW).await);
    }
    for role in [labels::ROLE_WORKSPACE, labels::ROLE_SUPERVISOR] {
        for volume in engine.unused_volumes(&with_role(role)).await? {
            // Not every engine filters by all that is asked.
            let is_ours = volume.labels.get(labels::GATEWAY).map(String::as_str)
                == Some(gateway_id)
                && volume.labels.get(labels::ROLE).map(String::as_str) == Some(role);
            if !is_ours {
                continue;
            }
            match engine.remove_volume(&volume.name).await {
                // Somebody uses it after all.
                Err(error) if error.kind == Kind::Conflict => {}
                removed => done = done.and(removed),
            }
        }
    }
    done
}
